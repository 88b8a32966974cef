"""``exeat doctor``: what could go wrong, said in plain words before it does.

``check.py`` says what a finding is; one file per part of the machine; ``examine.py`` runs them all.
Nothing that it looks at is changed.
"""
