// The strip of chords goes along with the playback, and a chord that is chosen is played.
(() => {
  const player = () => document.getElementById("song-player");
  const cells = () => document.querySelectorAll(".tb-cell");
  const follow = () => {
    const audio = player();
    if (!audio) return;
    for (const cell of cells()) {
      const now = audio.currentTime >= +cell.dataset.start && audio.currentTime < +cell.dataset.end;
      if (now === cell.hasAttribute("aria-current")) continue;
      if (now) cell.setAttribute("aria-current", "true");
      else cell.removeAttribute("aria-current");
    }
  };
  // Media events do not bubble: they are caught on their way down, so that a player drawn later is heard as well.
  for (const event of ["timeupdate", "seeked", "play"]) document.addEventListener(event, follow, true);
  document.addEventListener("click", event => {
    const cell = event.target.closest?.(".tb-cell"), audio = player();
    if (!cell || !audio) return;
    audio.currentTime = +cell.dataset.start + 0.001;
    audio.play().catch(() => {});
    follow();
  });
  document.documentElement.lang = "en";
})();
