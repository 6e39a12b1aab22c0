"""The table of nodes. Rows are keyed by node id, so the cursor stays on its node through every refresh."""

from rich.text import Text
from textual.widgets import DataTable

from parvada.schema import Node
from tui.snapshot import History, Snapshot
from tui.text import palette_of
from tui.widgets.node_cells import CELLS, NodeView

# column -> (header, width); chosen by how wide the screen is.
WIDE = (
    ("name", "node", 14),
    ("role", "role", 7),
    ("state", "state", 10),
    ("marks", "lead", 5),
    ("cpu", "cpu", 25),
    ("memory", "memory", 12),
    ("rate", "req/s", 7),
    ("blobs", "blobs", 7),
    ("seen", "seen", 6),
)
NORMAL = (
    ("name", "node", 9),
    ("role", "role", 7),
    ("state", "state", 9),
    ("marks", "lead", 4),
    ("cpu", "cpu", 12),
    ("memory", "memory", 6),
    ("rate", "req/s", 6),
    ("seen", "seen", 5),
)
NARROW = (
    ("name", "node", 9),
    ("state", "state", 9),
    ("marks", "lead", 4),
    ("cpu", "cpu", 10),
    ("rate", "req/s", 5),
    ("seen", "seen", 5),
)


RIGHT = frozenset({"rate", "blobs", "seen"})


class NodesTable(DataTable[Text]):
    """Draws the nodes of a snapshot."""

    def __init__(self, *, id: str) -> None:  # noqa: A002 - Textual's own name
        super().__init__(id=id, cursor_type="row", cursor_foreground_priority="renderable")
        self._shown: tuple[tuple[str, str, int], ...] = ()
        self._cells: dict[tuple[str, str], Text] = {}

    def show(self, snapshot: Snapshot, history: History, width: int) -> None:
        """Bring the table to this snapshot, touching only cells that changed. `width` is the screen's."""
        palette = palette_of(self.app.theme_variables)
        self._arrange(WIDE if width >= 114 else NORMAL if width >= 76 else NARROW)
        nodes = sorted(snapshot.cluster.nodes, key=_order)
        if [str(key.value) for key in self.rows] != [node.id for node in nodes]:
            self._rebuild([node.id for node in nodes])
        newest = max((node.last_seen for node in nodes if node.last_seen), default=None)
        for node in nodes:
            view = NodeView(node, history.cpu(node.id), newest, palette)
            for name, _, room in self._shown:
                self._put(node.id, name, CELLS[name](view, room))

    def _arrange(self, layout: tuple[tuple[str, str, int], ...]) -> None:
        if layout == self._shown:
            return
        kept, self._shown = self._cursor_key(), layout
        known = [str(key.value) for key in self.rows]
        self.clear(columns=True)
        for name, header, room in layout:
            self.add_column(header.rjust(room) if name in RIGHT else header, width=room, key=name)
        self._fill(known, kept)

    def _rebuild(self, ids: list[str]) -> None:
        kept = self._cursor_key()
        self.clear()
        self._fill(ids, kept)

    def _fill(self, ids: list[str], cursor: str | None) -> None:
        self._cells.clear()
        for node_id in ids:
            self.add_row(*[Text() for _ in self._shown], key=node_id)
        if cursor in ids:
            self.move_cursor(row=ids.index(cursor), animate=False)

    def _cursor_key(self) -> str | None:
        if not self.row_count or not self.is_valid_row_index(self.cursor_row):
            return None
        return str(self.ordered_rows[self.cursor_row].key.value)

    def _put(self, row: str, column: str, cell: Text) -> None:
        if self._cells.get((row, column)) != cell:
            self._cells[row, column] = cell
            self.update_cell(row, column, cell)


def _order(node: Node) -> tuple[int, str, str]:
    """`node-2` before `node-10`."""
    return len(node.name), node.name, node.id
