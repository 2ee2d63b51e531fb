"""The tables of *Policy Distillation* (Rusu et al. 2016), measured here beside what was published."""
