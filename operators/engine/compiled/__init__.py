"""The update as compiled loops and FFTW on several cores."""
