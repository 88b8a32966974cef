"""What is taken out of a result before a model or a client reads it: obligations of POL-9, fulfilled.

Pure.  ``checks`` ← ``rules`` ← ``detectors`` find values in text; ``texts`` knows what a string may hold
(JSON, base64, data addresses); ``plan`` and ``build`` change a tree of JSON; ``schemas`` keeps it fitting;
``caps`` cuts; ``filter.ResultFilter`` is what a call uses.  Whatever goes wrong here ends in withholding.
"""
