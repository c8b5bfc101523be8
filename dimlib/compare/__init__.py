"""Other methods: relatives that read the same denoiser (readouts), rivals that read the data (baselines)."""
