"""Names carry the labels: both spellings are read, the classes keep the original's order, nothing is guessed."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from triadbench.core.errors import UserError
from triadbench.core.models.chords import (
    ROOT_CODES,
    ROOTS,
    TYPE_CODES,
    TYPES,
    VOICINGS,
    ClipName,
    root_index,
    root_pitch_class,
)


def test_class_order_is_the_original_studys():
    assert TYPES == ("major", "minor", "diminished", "augmented")
    assert "".join(TYPE_CODES) == "jnda"
    assert ROOTS == ("Ab", "A", "Bb", "B", "C", "Db", "D", "Eb", "E", "F", "Gb", "G")
    assert " ".join(ROOT_CODES) == "Af An Bf Bn Cn Df Dn Ef En Fn Gf Gn"


def test_the_documented_example():
    name = ClipName.parse("piano_3_Af_d_m_45")
    assert name == ClipName(root=0, type=2, octave=3, volume="m", example=45, voicing="root", kind="piano")


def test_an_amplifier_copy_says_no_octave_and_no_volume():
    assert ClipName.parse("shred___Af_d__000") == ClipName(root=0, type=2, example=0, kind="shred")


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("piano_2_Gs_M_f_09", "piano_2_Af_j_f_09"),
        ("piano_2_As_m_m_00", "piano_2_Bf_n_m_00"),
        ("piano_2_Cs_d_p_03", "piano_2_Df_d_p_03"),
        ("piano_2_Fs_a_f_01", "piano_2_Gf_a_f_01"),
        ("piano_2_G#_M_f_09", "piano_2_Af_j_f_09"),
        ("piano_2_Ab_M_f_09", "piano_2_Af_j_f_09"),
        ("piano_2_A_M_f_09", "piano_2_An_j_f_09"),
        ("piano_2_Cf_j_f_09", "piano_2_Bn_j_f_09"),
        ("shred___Gs_m__123", "shred___Af_n__123"),
    ],
)
def test_old_spelling_reads_as_the_new_one(old, new):
    assert ClipName.parse(old) == ClipName.parse(new)
    assert ClipName.parse(old).format() == new


@given(
    st.builds(
        ClipName,
        root=st.integers(0, 11),
        type=st.integers(0, 3),
        octave=st.integers(0, 9),
        volume=st.sampled_from("fmp"),
        example=st.integers(0, 999_999),
        voicing=st.sampled_from(VOICINGS),
    )
)
def test_format_and_parse_are_inverse(name):
    assert ClipName.parse(name.format()) == name


@pytest.mark.parametrize(
    "stem",
    [
        "",
        "piano",
        "piano_3_Hf_d_m_45",
        "piano_3_Af_x_m_45",
        "piano_3_Af_d_x_45",
        "piano_3_Af_d_m_",
        "piano_3_Af_d_m_45_inv3",
        "piano_3_Af_d_m_45 (1)",
        "piano_3_Af_d_m_45\n",
        "xpiano_3_Af_d_m_45",
        "guitar_3_Af_d_m_45",
        "shred_3_Af_d_m_45",
        "PIANO_3_AF_D_M_45",
    ],
)
def test_a_foreign_name_is_refused(stem):
    with pytest.raises(UserError, match="is not a name of the data set"):
        ClipName.parse(stem)


@given(st.text(max_size=30))
def test_any_text_is_a_name_or_a_user_error(stem):
    try:
        ClipName.parse(stem)
    except UserError:
        pass


@given(st.integers(-100, 100))
def test_pitch_classes_and_class_indices_are_inverse(pitch_class):
    assert root_pitch_class(root_index(pitch_class)) == pitch_class % 12
    assert ROOTS[root_index(0)] == "C" and ROOTS[root_index(9)] == "A"


@pytest.mark.parametrize(
    ("stem", "defined"),
    [
        ("piano_3_Cn_a_m_00_inv1", False),
        ("piano_3_Cn_a_m_00_inv2", False),
        ("piano_3_Cn_a_m_00", True),
        ("piano_3_Cn_j_m_00_inv1", True),
        ("piano_3_Cn_a_m_00_open", True),
    ],
)
def test_only_an_inverted_augmented_triad_has_no_root(stem, defined):
    assert ClipName.parse(stem).root_is_defined is defined
