"""The promise: the machine that executes PTX computes what the ISA says, counts what a GPU would, and finds each fault:
short programs with answers by hand, and programs broken on purpose.
"""

import re

import numpy as np
import pytest

from triadbench.kernels.gpu.ptx_machine import Memory, PtxFault, execute

OUT, TABLE = 1 << 40, 2 << 40
_HEAD = """
.extern .shared .align 16 .b8 buffer[];
.visible .entry kernel(
    .param .u64 out,
    .param .u64 table
)
{
    .reg .pred %p<9>; .reg .b16 %rs<9>; .reg .f32 %f<19>; .reg .b32 %r<19>; .reg .b64 %rd<19>;
    ld.param.u64 %rd1, [out];
    ld.param.u64 %rd2, [table];
    mov.u32 %r1, %tid.x;
    mov.u32 %r2, %ctaid.x;
    mov.u64 %rd9, buffer;
    mad.lo.s32 %r3, %r2, 64, %r1;
    mul.wide.u32 %rd3, %r3, 4;
    add.s64 %rd3, %rd1, %rd3;                  // out + 4 (64 block + thread)
    shl.b32 %r4, %r1, 2;
    cvt.u64.u32 %rd4, %r4;
    add.s64 %rd4, %rd9, %rd4;                  // shared + 4 thread
    cvt.rn.f32.u32 %f1, %r1;
"""


def run(body, *, blocks=1, threads=64, table=None, out_type=np.uint32, **options):
    """What each thread of each block stored at %rd3, and the trace."""
    out = np.zeros((blocks, threads), out_type)
    table = np.arange(256, dtype=np.float32) if table is None else table
    memories = [Memory(out, OUT, read_only=False, written=False), Memory(table, TABLE)]
    launch = {"n_blocks": blocks, "threads": threads, "shared_bytes": 4096}
    return out, execute(f"{_HEAD}{body}\nret;\n}}\n", memories, (OUT, TABLE), **launch, **options)


THREAD = np.arange(64)
INTEGERS = {
    "mov.u32 %r9, -3;": 0 * THREAD + 2**32 - 3,
    "mul.hi.u32 %r9, %r1, 0x40000000;": THREAD // 4,
    "mul.hi.s32 %r9, %r1, -0x40000000;": -(THREAD << 30) >> 32,
    "mad.wide.u32 %rd5, %r1, 5, %rd4; cvt.u32.u64 %r9, %rd5;": 9 * THREAD,
    "cvt.u16.u32 %rs1, %r1; mul.lo.s16 %rs2, %rs1, 2048; cvt.u32.u16 %r9, %rs2;": THREAD * 2048 % 65536,
    "cvt.u16.u32 %rs1, %r1; mul.lo.s16 %rs2, %rs1, 2048; cvt.s32.s16 %r9, %rs2;": (THREAD * 2048).astype(np.int16),
    "sub.s32 %r5, %r1, 9; shr.s32 %r9, %r5, 40;": np.where(THREAD < 9, 2**32 - 1, 0),
    "shl.b32 %r9, %r1, 32;": 0 * THREAD,
    "sub.s32 %r5, %r1, 9; shr.u32 %r9, %r5, 31;": THREAD < 9,
    "div.u32 %r9, %r1, 7;": THREAD // 7,
    "rem.u32 %r9, %r1, 7;": THREAD % 7,
    "sub.s32 %r5, %r1, 9; max.s32 %r9, %r5, -4;": np.maximum(THREAD - 9, -4),
    "sub.s32 %r5, %r1, 9; setp.lt.s32 %p1, %r5, 0; selp.b32 %r9, 5, %r1, %p1;": np.where(THREAD < 9, 5, THREAD),
    "sub.s32 %r5, %r1, 9; setp.lo.u32 %p1, %r5, 2; setp.eq.s32 %p2, %r1, 0; or.pred %p3, %p1, %p2; selp.b32 %r9, 1, 0, %p3;": np.isin(THREAD, [0, 9, 10]),
    "mov.f32 %f2, 0f7FC00000; setp.leu.f32 %p1, %f1, %f2; setp.le.f32 %p2, %f1, %f2; selp.b32 %r5, 1, 0, %p1; selp.b32 %r6, 2, 0, %p2; add.s32 %r9, %r5, %r6;": 0 * THREAD + 1,
    "bfi.b32 %r9, %r1, -1, 8, 4;": 0xFFFFF0FF | (THREAD & 15) << 8,
    "cvt.u64.u32 %rd5, %r1; bfi.b64 %rd6, %rd5, -1, 40, 4; shr.u64 %rd7, %rd6, 32; cvt.u32.u64 %r9, %rd7;": 0xFFFFF0FF | (THREAD & 15) << 8,
    "mul.f32 %f2, %f1, 0fBFC00000; cvt.rzi.s32.f32 %r9, %f2;": np.trunc(-1.5 * THREAD).astype(np.int32),
    "mul.f32 %f2, %f1, 0f3F000000; cvt.rni.f32.f32 %f3, %f2; cvt.rzi.u32.f32 %r9, %f3;": np.rint(THREAD / 2),
    "setp.gt.u32 %p1, %r1, 40; mov.u32 %r9, 1; @%p1 mov.u32 %r9, 2; @!%p1 add.s32 %r9, %r9, 6;": np.where(THREAD > 40, 2, 7),
}  # fmt: skip


@pytest.mark.parametrize("text", INTEGERS)
def test_integers_and_predicates(text):
    out, _ = run(f"{text} st.global.u32 [%rd3], %r9;")
    np.testing.assert_array_equal(out[0], INTEGERS[text].astype(np.uint32))


def test_floats():
    def value(text):
        return run(f"{text} st.global.f32 [%rd3], %f9;", out_type=np.float32)[0][0]

    x = THREAD.astype(np.float32)
    third = np.float32(1) / np.float32(3)
    exact = (x.astype(np.float64) * np.float64(third) - 7.0).astype(np.float32)
    np.testing.assert_array_equal(value("mov.f32 %f2, 0f3EAAAAAB; fma.rn.f32 %f9, %f1, %f2, 0fC0E00000;"), exact)
    np.testing.assert_array_equal(
        value("mov.f32 %f2, 0f3EAAAAAB; mul.f32 %f3, %f1, %f2; neg.f32 %f9, %f3;"), -x * third
    )
    np.testing.assert_array_equal(value("sqrt.rn.f32 %f9, %f1;"), np.sqrt(x))
    np.testing.assert_array_equal(value("ex2.approx.ftz.f32 %f2, %f1; lg2.approx.f32 %f9, %f2;"), x)
    np.testing.assert_array_equal(
        value("mov.f32 %f2, 0f7FC00000; min.f32 %f9, %f1, %f2;"), x
    )  # no number is passed over


def test_a_loop_whose_lanes_part_and_meet_again():
    """Thread t adds 0..t - 1; warps that take an instruction are counted, with whoever is left."""
    body = """
    mov.u32 %r5, 0;
    mov.u32 %r6, 0;
$L_again:
    setp.ge.u32 %p1, %r6, %r1;
    @%p1 bra $L_end;
    add.s32 %r5, %r5, %r6;
    add.s32 %r6, %r6, 1;
    bra.uni $L_again;
$L_end:
    st.global.u32 [%rd3], %r5;
"""
    for order in ("together", "apart"):
        out, trace = run(body, blocks=3, order=order)
        np.testing.assert_array_equal(out, np.tile(THREAD * (THREAD - 1) // 2, (3, 1)))
        store, add = (
            next(k for k, i in enumerate(trace.program.instructions) if i.text.startswith(t))
            for t in ("st.g", "add.s32 %r5")
        )
        assert trace.warps[add] == 3 * (31 + 63)
        assert trace.warps[store] == 3 * 2 if order == "together" else trace.warps[store] >= 6


@pytest.mark.parametrize(
    ("access", "stride", "passes", "ideal"),
    [
        ("ld.shared.f32 %f2", 4, 2, 2),
        ("ld.shared.f32 %f2", 8, 4, 2),
        ("ld.shared.f32 %f2", 12, 2, 2),
        ("ld.shared.f32 %f2", 0, 2, 2),  # a word for all
        ("ld.shared.v2.f32 {%f2, %f3}", 8, 4, 4),
        ("ld.shared.v2.f32 {%f2, %f3}", 16, 8, 4),
        ("ld.shared.v4.f32 {%f2, %f3, %f4, %f5}", 16, 8, 8),
        ("ld.shared.v4.f32 {%f2, %f3, %f4, %f5}", 48, 8, 8),
        ("ld.shared.v4.f32 {%f2, %f3, %f4, %f5}", 32, 16, 8),
    ],
)  # fmt: skip
def test_bank_conflicts(access, stride, passes, ideal):
    fill = "add.s64 %rd6, %rd4, {};"
    body = "mov.f32 %f8, 0f3F800000;" + "".join(
        f"add.s64 %rd6, %rd4, {256 * i}; st.shared.f32 [%rd6], %f8;" for i in range(16)
    )
    body += f"bar.sync 0; mul.wide.u32 %rd5, %r1, {stride}; add.s64 %rd5, %rd5, %rd9; {access}, [%rd5];"
    _, trace = run(body, trace=True)
    (found,) = (a for i, a in trace.accesses.items() if trace.program.instructions[i].text.startswith(access))
    assert (found.requests, found.passes, found.ideal, found.sectors) == (2, passes, ideal, 0), fill


@pytest.mark.parametrize(
    ("offset", "stride", "lines", "sectors"), [(0, 4, 1, 4), (4, 4, 2, 5), (0, 32, 8, 32), (0, 0, 1, 1)]
)
def test_lines_and_sectors(offset, stride, lines, sectors):
    body = f"mul.wide.u32 %rd5, %r1, {stride}; add.s64 %rd5, %rd5, %rd2; ld.global.nc.f32 %f2, [%rd5+{offset}];"
    _, trace = run(body, threads=32, trace=True)
    (found,) = trace.accesses.values()
    assert (found.requests, found.passes, found.sectors, found.bytes) == (1, lines, sectors, 128)


_PUT, _NEXT = "st.shared.f32 [%rd4], %f1;", "xor.b32 %r5, %r4, {}; cvt.u64.u32 %rd5, %r5; add.s64 %rd5, %rd5, %rd9;"
FAULTS = {
    "reads_before_the_barrier": (f"{_PUT} {_NEXT.format(128)} ld.shared.f32 %f2, [%rd5];", "race: reads what another thread wrote"),
    "reads_a_lane_without_a_barrier": (f"{_PUT} {_NEXT.format(4)} ld.shared.f32 %f2, [%rd5];", "race: reads what another"),
    "writes_what_another_reads": (f"{_PUT} bar.sync 0; {_NEXT.format(128)} ld.shared.f32 %f2, [%rd5]; {_PUT}", "race: writes what another thread reads"),
    "all_read_one_word_and_one_writes": (f"{_PUT} bar.sync 0; ld.shared.f32 %f2, [buffer]; {_PUT}", "race: writes what another thread reads"),
    "two_write_a_word": (f"{_PUT} {_NEXT.format(128)} st.shared.f32 [%rd5], %f1;", "race: writes what another thread wrote"),
    "all_write_a_word": ("st.shared.f32 [buffer], %f1;", "race: another thread writes the same word at once"),
    "two_blocks_write_a_word": ("mul.wide.u32 %rd5, %r1, 4; add.s64 %rd5, %rd5, %rd1; st.global.u32 [%rd5], %r1;", "race: "),
    "nothing_wrote": ("ld.shared.f32 %f2, [%rd4];", "reads memory that nothing wrote, thread 0 of block 0 at 0"),
    "part_of_a_group_is_not_written": ("ld.global.nc.f32 %f2, [%rd2]; setp.lt.u32 %p1, %r1, 9; @%p1 st.shared.f32 [%rd4], %f1; bar.sync 0; setp.eq.s32 %p2, %r1, 0; @%p2 ld.shared.v4.f32 {%f2, %f3, %f4, %f5}, [%rd4+32];", "nothing wrote"),
    "beyond_shared_memory": ("st.shared.f32 [%rd4+3844], %f1;", "out of bounds, thread 63 of block 0 at 4096"),
    "before_shared_memory": ("st.shared.f32 [%rd4+-4], %f1;", "out of bounds, thread 0 of block 0 at -4"),
    "beyond_a_table": ("ld.global.nc.f32 %f2, [%rd2+1024];", "out of bounds"),
    "before_every_table": ("ld.global.nc.f32 %f2, [%rd4];", "out of bounds"),
    "a_group_misaligned": ("ld.global.nc.v4.f32 {%f2, %f3, %f4, %f5}, [%rd2+8];", "not aligned to 16 bytes"),
    "writes_a_table": ("st.global.f32 [%rd2], %f1;", "writes memory that is only read"),
    "reads_the_output_as_a_table": ("st.global.f32 [%rd3], %f1; ld.global.nc.f32 %f2, [%rd3];", "as if it were not"),
    "half_a_block_at_the_barrier": ("setp.lt.u32 %p1, %r1, 32; @%p1 bra $L_end; bar.sync 0; $L_end:", "not all threads of block 0 reach"),
    "without_end": ("$L_again: bra $L_again;", "does not end"),
}  # fmt: skip


@pytest.mark.parametrize("name", FAULTS)
def test_faults_are_found_in_both_orders(name):
    """In the other order a fault may show first as another one: what is read too early was not written yet, say."""
    body, message = FAULTS[name]
    for order, match in (("together", re.escape(message)), ("apart", None)):
        with pytest.raises(PtxFault, match=match):
            run(body, blocks=2, order=order)


def test_what_the_faults_are_without():
    """The same programs in order: nothing is found."""
    body = f"{_PUT} bar.sync 0; {_NEXT.format(128)} ld.shared.f32 %f2, [%rd5]; bar.sync 0; {_PUT} st.global.f32 [%rd3], %f2;"
    for order in ("together", "apart"):
        out, _ = run(body, blocks=2, out_type=np.float32, order=order)
        np.testing.assert_array_equal(out, np.tile(THREAD ^ 32, (2, 1)))


@pytest.mark.parametrize("text", ["vote.sync.all.pred %p1, %p2, 1;", "add.sat.f32 %f2, %f1, %f1;", "ld.shared.f64 %fd1, [%rd4];", "ld.local.f32 %f2, [%rd4];", "div.s32 %r9, %r1, 3;"])  # fmt: skip
def test_unknown_instructions_are_refused(text):
    with pytest.raises(NotImplementedError, match=re.escape(text.split()[0])):
        run(text)


def test_wrong_use():
    with pytest.raises(ValueError, match="order='up' must be"):
        run("", order="up")
    with pytest.raises(ValueError, match="threads=40 a multiple of 32"):
        run("", threads=40)
