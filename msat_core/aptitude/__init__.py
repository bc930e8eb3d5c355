"""The aptitude test: choosing its questions, sitting it, and the journal of a sitting."""
