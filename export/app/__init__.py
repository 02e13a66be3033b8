"""The app in the browser: clips, songs, ear training and practice. `server.serve` starts it.

`predictors`, `hearing`, `spectrogram`, `drawings`, `sounds`, `games` and `timeline_page` know nothing of Gradio;
the `*_tab` modules are the page, and `server` is who may fetch what, for how long.
"""
