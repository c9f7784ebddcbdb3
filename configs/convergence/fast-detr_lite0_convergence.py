_base_ = '../_base_/convergence_lite0.py'  # the recipe, as in the template
