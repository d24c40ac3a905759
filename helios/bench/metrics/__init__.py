"""One file per metric: pure functions on frames, and an accumulator that is fed one frame after the other.

base.py                                      the interface; a metric that cannot measure says why
motion.py smoothness.py                      official motion amplitude; AMT-S smoothness and its optical-flow stand-in
aesthetic.py semantic.py naturalness.py      official metrics that need networks or a judge
statistics.py drift.py temporal.py repeats.py   the offline tier
captions.py                                  exact captions of toy-world clips
suite.py                                     which metrics a run asks for
"""
