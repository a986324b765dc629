"""The format of OpenAI's chat completions: requests, responses and errors. Pure."""
