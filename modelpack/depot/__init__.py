"""The depot: Ollama's management API over a models directory, where no Ollama runs."""
