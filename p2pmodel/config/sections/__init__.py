"""The sections of the settings, one module for each subject. `config/settings.py` puts them together."""
