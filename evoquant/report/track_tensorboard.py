"""TensorBoard: event files, written by its own writer; neither TensorFlow nor PyTorch is needed."""

from __future__ import annotations

import json
import time
from collections import defaultdict
from typing import TYPE_CHECKING, Any

from evoquant.errors import MissingExtraError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path


class TensorBoard:
    """Event files in one folder, another one each time that a run goes on."""

    def __init__(self, folder: Path, params: Mapping[str, str]) -> None:
        """Open a new event file.

        Raises:
            MissingExtraError: tensorboard is not installed.
        """
        try:
            from tensorboard.compat.proto import event_pb2, summary_pb2
            from tensorboard.summary.writer.event_file_writer import EventFileWriter
        except ImportError:
            raise MissingExtraError("the tracker tensorboard", "tensorboard", "tensorboard") from None
        self._event: Any = event_pb2.Event
        self._summary: Any = summary_pb2.Summary
        self._folder = folder
        self._known = _scalars(folder)
        self._writer: Any = EventFileWriter(str(folder))
        if not self._known:
            self._describe(params)

    def _describe(self, params: Mapping[str, str]) -> None:
        """The config: for the tab of hyperparameters, and whole as a text."""
        from tensorboard.plugins.hparams.summary_v2 import hparams_pb
        from tensorboard.plugins.text.summary_v2 import text_pb

        text = "\n".join(f"    {line}" for line in json.dumps(params, indent=2).splitlines())  # as Markdown: code
        for summary in (hparams_pb(dict(params), start_time_secs=time.time()), text_pb("config", text)):
            self._writer.add_event(self._event(step=0, wall_time=time.time(), summary=summary))

    def logged(self) -> Mapping[str, set[int]]:
        """Tag → steps."""
        return self._known

    def log(self, step: int, figures: Mapping[str, float], when_s: float) -> None:
        """One event with all figures."""
        values = [self._summary.Value(tag=tag, simple_value=value) for tag, value in figures.items()]
        self._writer.add_event(self._event(step=step, wall_time=when_s, summary=self._summary(value=values)))

    def flush(self) -> None:
        """To the disk."""
        self._writer.flush()

    def finish(self, run: Path) -> None:
        """Nothing more: it keeps no files."""

    def close(self, *, finished: bool) -> None:
        """Close the event file."""
        self._writer.close()

    def state(self) -> dict[str, str]:
        """The folder."""
        return {"path": str(self._folder)}


def _scalars(folder: Path) -> dict[str, set[int]]:
    """Tag → steps of all event files of a folder; a torn last record is left out."""
    steps: dict[str, set[int]] = defaultdict(set)
    if folder.is_dir():
        from tensorboard.backend.event_processing.event_file_loader import RawEventFileLoader
        from tensorboard.compat.proto.event_pb2 import Event

        for path in sorted(folder.glob("events.out.tfevents.*")):
            for raw in RawEventFileLoader(str(path)).Load():
                event = Event.FromString(raw)
                for value in event.summary.value:
                    if value.HasField("simple_value"):
                        steps[value.tag].add(event.step)
    return dict(steps)
