"""Models as Hugging Face directories, out and in. Which class expresses a decoder: `families`; names: `names`."""
