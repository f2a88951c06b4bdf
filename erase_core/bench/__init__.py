"""The measuring stick: methods of erasing side by side on one model, judged alike."""
