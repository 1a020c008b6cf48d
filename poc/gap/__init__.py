"""The solver-verifier gap (Sun et al., arXiv 2507.00075): measure, fit, forecast or abstain.

equations: the paper's differential equations and their closed form; fit: its parameters from measured curves;
forecast: what comes next by six models, which of them has been right so far, and when to say nothing; cross: external
answers; selfscore and measure: the two capabilities of a policy; external: answers that somebody else gave; show: the
table and the sentence. curves: a run's measurements, read and analysed; words: the
sentences. equations, fit, forecast, cross, honesty and words are pure functions of numbers.
"""
