"""The app as a visitor meets it, in a real browser: every tab, a bad file, keys alone, a phone, nothing fetched."""

from __future__ import annotations

import time
from pathlib import Path
from urllib.parse import unquote

import httpx
import numpy as np
import pytest
import soundfile

from tests.export.app.chromium import Page
from triadbench.bench.report import browser
from triadbench.export.app import example_sounds

pytestmark = pytest.mark.skipif(browser.find() is None, reason="no Chromium or Chrome on the PATH")
C_MAJOR = example_sounds.example("C major")


@pytest.fixture(scope="module")
def page(app, tmp_path_factory):
    """A tab with the app open, and a microphone that hears C major; errors and foreign addresses fail at the end."""
    microphone = tmp_path_factory.mktemp("microphone") / "chord.wav"
    waveform, rate = soundfile.read(C_MAJOR)
    soundfile.write(microphone, waveform, rate, subtype="PCM_16")
    opened = Page(microphone)
    try:
        opened.size(1400, 900)
        opened.open(app.url)
        opened.wait_text("#clip-answer", "the answer appears here")
        tab(opened, "Clip")
        yield opened
    finally:
        opened.close()


def tab(page, name: str) -> None:
    chosen = (
        f"[...document.querySelectorAll('[role=tab][aria-selected=true]')].some(t => t.innerText.trim() === {name!r})"
    )
    for _ in range(20):
        page.click("[role=tab]", name)
        if page.run(f"new Promise(done => setTimeout(() => done({chosen}), 100))"):  # a page just opened is still deaf
            return
    raise AssertionError(f"the tab {name} does not open")


def answered(page) -> str:
    return page.wait_text("#clip-answer", "Answered in")


def test_an_example_at_the_first_click(page):
    page.click("#clip-examples button", "F minor")
    text = answered(page)
    assert "F minor over A♭: F, A♭, C" in text and "Next likely chords" in text and "What the model saw" in text
    assert (
        page.run("document.querySelector('.tb-keys').getAttribute('aria-label')") == "Keyboard. F minor: F, A flat, C"
    )
    assert page.run(
        "(async () => { const i = new Image();"
        " i.src = document.querySelector('.tb-mel image').getAttribute('href');"
        " await i.decode(); return [i.naturalWidth, i.naturalHeight] })()"
    ) == [63, 192]


def test_a_bad_file_and_then_a_good_one(page, tmp_path):
    page.click("#clip-audio button[aria-label='Clear']")
    page.wait_text("#clip-answer", "the answer appears here")
    (tmp_path / "song.wav").write_text("la la la\n" * 100)
    page.send("#clip-audio", tmp_path / "song.wav")
    assert "not a sound file" in page.wait_text("#clip-answer", "This file")
    assert page.run("!!document.querySelector('#clip-answer [role=alert]')")
    page.click("#clip-audio button[aria-label='Clear']")
    page.wait_text("#clip-answer", "the answer appears here")
    soundfile.write(tmp_path / "good.wav", example_sounds.triad("D", "minor", 3, 4), 16_000)
    page.send("#clip-audio", tmp_path / "good.wav")
    assert "D minor: D, F, A" in answered(page)


def test_a_file_that_is_too_large_is_refused(page, tmp_path):
    page.click("#clip-audio button[aria-label='Clear']")
    page.wait_text("#clip-answer", "the answer appears here")
    (tmp_path / "large.wav").write_bytes(bytes(3_200_000))
    page.send("#clip-audio", tmp_path / "large.wav")
    page.wait("/size|large/i.test(document.querySelector('.toast-body, .toast-wrap').innerText)")
    page.errors[:] = [line for line in page.errors if "413" not in line]  # the browser's own line about it


def test_a_song_its_playback_and_its_files(page):
    tab(page, "Song")
    page.click("#song-examples button", "Progression")
    text = page.wait_text("#song-answer", "Found in", 40)
    assert "key of G major" in text
    labels = page.run("[...document.querySelectorAll('.tb-cell')].map(cell => cell.getAttribute('aria-label'))")
    assert labels[0].startswith("G major, I, 0:00 to 0:0") and len(labels) >= 9
    page.wait("document.querySelector('#song-player').readyState >= 1")
    assert 15 < page.run("document.querySelector('#song-player').duration") < 22
    cell = page.run("document.querySelectorAll('.tb-cell')[2].focus(), +document.activeElement.dataset.start")
    page.key("Enter", 13)  # chosen by the keyboard, and played from there
    page.call("Input.dispatchKeyEvent", type="char", text="\r")
    page.wait(f"document.querySelector('#song-player').currentTime >= {cell}")
    page.wait("[...document.querySelectorAll('.tb-cell')].findIndex(c => c.hasAttribute('aria-current')) === 2")
    page.run("document.querySelector('#song-player').pause()")
    links = page.wait(
        "(all => all.length >= 5 && all)([...document.querySelectorAll('#song-downloads a')].map(a => a.href))"
    )
    assert {Path(unquote(link)).suffix for link in links} == {".lab", ".json", ".csv", ".mid", ".html"}
    for link in links:
        answer = httpx.get(link)
        assert answer.status_code == 200 and len(answer.content) > 50
        if link.endswith(".lab"):
            assert answer.text.split()[0] == "0.000" or float(answer.text.split()[0]) == 0.0


@pytest.mark.parametrize("width", [1400, 320])
def test_a_long_name_fits_into_its_cell(page, width):
    page.size(width, 844)
    wider = page.run(
        "(() => { const cells = [...document.querySelectorAll('.tb-cell')], names = cells.map(c => c.children[0].innerText);"
        " cells.forEach(c => { c.children[0].innerText = 'C♯m7b5/D♯' });"
        " const wider = cells.map(c => c.children[0].getBoundingClientRect().width - c.clientWidth);"
        " const across = document.documentElement.scrollWidth - innerWidth;"
        " cells.forEach((c, k) => { c.children[0].innerText = names[k] });"
        " return [wider.length, Math.max(...wider), across] })()"
    )
    page.size(1400, 900)
    assert wider[0] >= 9 and wider[1] <= 0 and wider[2] <= 0


def test_a_bad_song(page, tmp_path):
    page.click("#song-file button[aria-label='Clear'], #song-file button[aria-label*='emove']")
    page.wait_text("#song-answer", "Drop a recording")
    soundfile.write(tmp_path / "long.flac", np.zeros(31 * 8000), 8000)
    page.send("#song-file", tmp_path / "long.flac")
    assert "longer than 0:30" in page.wait_text("#song-answer", "This sound")
    assert not page.run("[...document.querySelectorAll('#song-downloads a')].some(a => a.getClientRects().length)")


def test_ear_training_keeps_a_score_of_ones_own(app, page):
    tab(page, "Ear training")
    for asked in (1, 2):
        page.click("#ear-play")
        page.wait_text("#ear-answer", "Listen")
        name = page.wait(
            "(document.querySelector('#ear-sound audio')?.src || "
            "[...document.querySelectorAll('#ear-sound a, #ear-sound [src]')].map(e => e.href || e.src)[0]) ?? 'none'"
        )
        assert not any(kind in name for kind in ("major", "minor", "dim", "aug"))
        page.wait("!document.querySelector('#ear-type input:checked')")  # a new question clears the answer
        page.click("#ear-type label", "minor")
        page.wait("!!document.querySelector('#ear-type input:checked')")
        page.click("#ear-check")
        text = page.wait_text("#ear-answer", "it was")
        right = "Right" in text
        assert ("minor." in text) == right and f"of {asked} right" in text
    other = Page()
    try:
        other.size(1400, 900)
        other.open(app.url)
        tab(other, "Ear training")
        other.click("#ear-play")
        other.wait_text("#ear-answer", "Listen")
        other.click("#ear-type label", "major")
        other.wait("!!document.querySelector('#ear-type input:checked')")
        other.click("#ear-check")
        assert "of 1 right" in other.wait_text("#ear-answer", "it was")
    finally:
        other.close()


def test_practice_listens_to_the_microphone(page):
    tab(page, "Practice")
    page.click("#practice-new")
    asked = page.wait_text("#practice-target", "Any octave")
    page.click("#practice-audio button", "Record")
    page.wait("[...document.querySelectorAll('#practice-audio button')].some(b => b.innerText.includes('Stop'))")
    time.sleep(1.5)
    page.click("#practice-audio button", "Stop")
    text = page.wait_text("#practice-answer", "Your score")
    assert "✓ Right" in text if "C major" in asked else "I heard C major" in text


def test_keys_alone(page):
    page.call("Page.bringToFront")
    page.run("document.querySelector('[role=tab]').focus()")
    page.key("ArrowRight", 39)
    seen = []
    for _ in range(12):
        page.key("Tab", 9)
        seen.append(
            page.run(
                "(e => [e.tagName, getComputedStyle(e).outlineStyle, e.innerText || e.ariaLabel || '']) (document.activeElement)"
            )
        )
    assert len({tuple(one) for one in seen}) > 5 and any(one[1] == "solid" for one in seen)


def test_every_control_has_a_name(page):
    nameless = page.run(
        "[...document.querySelectorAll('button, a[href], input:not([type=file]), audio, [role=img]')]"
        ".filter(e => e.getClientRects().length && !e.closest('[aria-hidden=true]') && !(e.innerText || '').trim() && !e.ariaLabel && !e.title"
        " && !(e.labels && e.labels.length) && !e.getAttribute('aria-labelledby')).map(e => e.outerHTML.slice(0, 200))"
    )
    assert nameless == []
    assert page.run("document.documentElement.lang") == "en" and page.run("document.title") == "triadbench"


@pytest.mark.parametrize("width", [390, 320])
def test_a_phone_scrolls_in_one_direction_only(page, width):
    page.size(width, 844)
    for name in ("Clip", "Song", "Ear training", "Practice"):
        tab(page, name)
        assert page.run("document.documentElement.scrollWidth") <= width, name
    page.size(1400, 900)


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_words_stand_out_from_what_is_behind_them(app, page, theme):
    """WCAG AA, 4.5 to 1, of our own words on the tab Song, which has the most colours."""
    page.open(f"{app.url}/?__theme={theme}")
    page.wait_text("#clip-answer", "the answer appears here")
    tab(page, "Song")
    page.click("#song-examples button", "Progression")
    page.wait_text("#song-answer", "Found in", 40)
    assert page.run("document.body.classList.contains('dark')") == (theme == "dark")
    seen = page.run(
        """(() => {
          const rgb = text => text.match(/[\\d.]+/g).map(Number);
          const light = ([r, g, b]) => [r, g, b].map(v => (v /= 255) <= .03928 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4)
            .reduce((sum, v, i) => sum + v * [.2126, .7152, .0722][i], 0);
          const behind = e => { for (; e; e = e.parentElement) { const c = rgb(getComputedStyle(e).backgroundColor);
            if (c.length < 4 || c[3] > .99) return c; } return [255, 255, 255]; };
          return [...document.querySelectorAll('.tb-song p, .tb-song p b, .tb-cell *, .tb-song td, .tb-song th')].map(e => {
            const [a, b] = [light(rgb(getComputedStyle(e).color)), light(behind(e))].sort((x, y) => y - x);
            return [(a + .05) / (b + .05), e.tagName, e.innerText.slice(0, 40)]; }).filter(x => x[2]);
        })()"""
    )
    assert len(seen) > 20 and [one for one in seen if one[0] < 4.5] == []


def test_nothing_was_fetched_from_elsewhere_and_nothing_failed(page):
    """Last: over everything above."""
    # Gradio asks how far an upload is, and is told 404 where a small one has ended by then.
    errors = [line for line in page.errors if "upload_progress" not in line]
    assert page.elsewhere() == [] and errors == [] and len(page.addresses) > 20
