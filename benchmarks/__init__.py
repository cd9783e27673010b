"""Speed, memory and accuracy, measured side by side in one run. Each module's docstring has its command."""
