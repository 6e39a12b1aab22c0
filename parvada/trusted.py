"""The types that a skops file may contain beyond those that skops trusts by itself (NumPy's and SciPy's arrays, and
the public estimators of scikit-learn). The list is ours and is never taken from a file: a model file that names
any other type is not loaded.

All of them are data holders of scikit-learn whose construction runs no code from the file.
"""

from typing import Final

TRUSTED_TYPES: Final[tuple[str, ...]] = (
    "numpy.dtype",
    # Trees, forests, boosting.
    "sklearn.ensemble._hist_gradient_boosting.predictor.TreePredictor",
    "sklearn.tree._tree.Tree",
    # Neighbours: the indices and the distances they hold.
    "sklearn.metrics._dist_metrics.EuclideanDistance64",
    "sklearn.metrics._dist_metrics.ManhattanDistance64",
    "sklearn.metrics._dist_metrics.MinkowskiDistance64",
    "sklearn.neighbors._ball_tree.BallTree",
    "sklearn.neighbors._kd_tree.KDTree",
    # Calibration, Gaussian processes, neural networks, generalized linear models.
    "sklearn._loss.loss.HalfTweedieLoss",
    "sklearn._loss.loss.HalfTweedieLossIdentity",
    "sklearn.calibration._CalibratedClassifier",
    "sklearn.calibration._SigmoidCalibration",
    "sklearn.gaussian_process._gpc._BinaryGaussianProcessClassifierLaplace",
    "sklearn.gaussian_process.kernels.ConstantKernel",
    "sklearn.gaussian_process.kernels.Product",
    "sklearn.gaussian_process.kernels.RBF",
    "sklearn.neural_network._stochastic_optimizers.AdamOptimizer",
    "sklearn.neural_network._stochastic_optimizers.SGDOptimizer",
)
