"""Pictures of results: labelled grids, loss charts, attention overlays. PIL only."""

from .chart import loss_chart
from .grid import Row, grid
from .heat import HeatRow, heat_grid, overlay
from .sheet import Picture, to_pictures

__all__ = [
    "HeatRow",
    "Picture",
    "Row",
    "grid",
    "heat_grid",
    "loss_chart",
    "overlay",
    "to_pictures",
]
