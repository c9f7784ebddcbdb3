"""Write checkpoints that survive kills and full disks."""

from __future__ import annotations

import errno
import io
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from mmdet.registry import HOOKS
from mmengine.dist import barrier, is_main_process
from mmengine.fileio import LocalBackend, get_file_backend, register_backend
from mmengine.hooks import CheckpointHook
from mmengine.runner import EpochBasedTrainLoop, IterBasedTrainLoop, Runner

from ...utils.files import free_space, remove_unfinished, write_atomically
from .changes import Changes, run_within
from .checkpoint_choice import check_named, choose_checkpoint, point_to

# Disk full, quota exceeded, file too large.
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
VALIDATED = "last_validation"  # file in the work directory, next to last_checkpoint


class AtomicBackend(LocalBackend):
    """Local file backend that writes files atomically."""

    def put(self, obj: bytes, filepath: str | Path) -> None:
        """Write bytes."""
        write_atomically(Path(filepath), obj)

    def put_text(self, obj: str, filepath: str | Path, encoding: str = "utf-8") -> None:
        """Write text."""
        write_atomically(Path(filepath), obj.encode(encoding))


@contextmanager
def whole_files() -> Iterator[None]:
    """Context in which mmengine writes local files atomically.

    backend_args would do for Runner, but FlexibleRunner (FSDP) and published models ignore them.
    """
    before = type(get_file_backend("."))
    register_backend("local", AtomicBackend, force=True, prefixes="")
    try:
        yield
    finally:
        register_backend("local", before, force=True, prefixes="")


@HOOKS.register_module()
class AtomicCheckpointHook(CheckpointHook):
    """mmengine's CheckpointHook, with its options, for runs that may be killed.

    - A checkpoint gets its name when all of it is on disk; then `last_checkpoint` is written; only
      then are older checkpoints removed, including the former best. So the disk needs room for one
      checkpoint more than max_keep_ckpts.
    - `--resume` checks the file that `last_checkpoint` names. If it is damaged or missing, the
      newest intact checkpoint is used, with a warning. A damaged file that is named on the command
      line or in `load_from` is an error.
    - A killed validation is repeated when training resumes. A finished one writes its best score to
      the small file `last_validation`, because its checkpoint was saved before. Only if a schedule
      depends on metrics is the checkpoint written again.
    - If the disk is full, training ends with an error that names the last good checkpoint.

    A remote out_dir, or a backend set by backend_args or file_client_args, writes as in mmengine.

    Args:
        *args, **kwargs: As for mmengine's ``CheckpointHook``.
    """

    file_backend: Any
    keep_ckpt_ids: deque[int]
    last_ckpt: str | None

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._validated_at: int | None = None  # iteration at the end of the last validation
        self._meta: dict[str, Any] = {}  # of the checkpoint that is being saved
        self._last_meta: dict[str, Any] = {}  # of the checkpoint that was last saved or resumed

    # ----------------------------------------------------------------------------------------------
    # Before training: which checkpoint

    def before_run(self, runner: Runner) -> None:
        """Check the file that mmengine will load next."""
        if runner._load_from is not None:
            check_named(str(runner._load_from))
        elif runner._resume:
            work_dir = Path(runner.work_dir)
            folder = work_dir
            if self.out_dir is not None and Path(self.out_dir) != work_dir:
                folder = Path(self.out_dir) / work_dir.name  # as in mmengine
            if is_main_process():
                pointer = work_dir / "last_checkpoint"
                own_log = work_dir / runner.timestamp
                choose_checkpoint(pointer, folder, self.filename_tmpl, runner.logger, own_log)
            barrier()  # other processes read last_checkpoint after this
        run_within(runner, explain_full_disk(runner.work_dir))

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Add to a checkpoint the results of the validation that followed it."""
        self._last_meta = dict(checkpoint.get("meta") or {})
        path = Path(runner.work_dir) / VALIDATED
        if not (self._last_meta and path.is_file()):
            return
        validation = torch.load(path, weights_only=True)
        if validation["of"] == _identity(self._last_meta):
            self._last_meta["validation_due"] = None
            checkpoint["message_hub"]["runtime_info"].update(validation["runtime_info"])

    def before_train(self, runner: Runner) -> None:
        """Remove a killed process's unfinished files, and repeat a killed validation."""
        super().before_train(runner)
        if self.max_keep_ckpts > 0:
            # mmengine's has a maximum length and would drop a number before its file is removed
            self.keep_ckpt_ids = deque(self.keep_ckpt_ids)
        # in this folder, if the run was moved or copied; mmengine sets at most one of both
        self.best_ckpt_path = self._here(getattr(self, "best_ckpt_path", None))
        best = getattr(self, "best_ckpt_path_dict", {})
        self.best_ckpt_path_dict = {key: self._here(path) for key, path in best.items()}
        self._remove_outdated_best(runner)
        if is_main_process():
            for folder in {Path(self.out_dir), Path(runner.work_dir)}:
                for path in remove_unfinished(folder):
                    runner.logger.info(f"Removed {path}, the unfinished file of a killed process.")
        if runner.iter > 0:
            # mmengine does not restore it, and then would not store which checkpoint is the best
            self.last_ckpt = runner.message_hub.get_info("last_ckpt")
            if self._last_meta.get("iter") == runner.iter and self._owes_validation(runner):
                runner.logger.info("The validation after this checkpoint was not finished.")
                runner.val_loop.run()

    def _here(self, path: str | None) -> str | None:
        if path is None:
            return None
        here = self.file_backend.join_path(self.out_dir, Path(path).name)
        return here if self.file_backend.exists(here) else None

    def _owes_validation(self, runner: Runner) -> bool:
        loop = runner.train_loop
        due = self._last_meta.get("validation_due")
        if runner.val_loop is None:
            return False
        if due == "epoch" and isinstance(loop, EpochBasedTrainLoop):
            done, end = loop.epoch, loop.max_epochs
        elif due == "iter" and isinstance(loop, IterBasedTrainLoop):
            done, end = loop.iter, loop.max_iters
        else:  # a checkpoint within an epoch, or of an older version without this information
            return False
        loop._decide_current_val_interval()
        return done >= loop.val_begin and (done % loop.val_interval == 0 or done == end)

    # ----------------------------------------------------------------------------------------------
    # Saving

    def after_val_epoch(self, runner: Runner, metrics: dict | None = None) -> None:
        """Save the best checkpoint and the validation's results."""
        if not hasattr(self, "file_backend"):
            return  # validation without training
        self._validated_at = runner.iter
        super().after_val_epoch(runner, metrics or {})
        if self._last_meta.get("iter") == runner.iter:  # there is a checkpoint of this iteration
            self._save_validation(runner)
        self._remove_outdated_best(runner)

    def _save_validation(self, runner: Runner) -> None:
        schedulers = runner.param_schedulers or []
        if isinstance(schedulers, dict):
            schedulers = [one for several in schedulers.values() for one in several]
        if any(getattr(scheduler, "need_val_args", False) for scheduler in schedulers):
            step = runner.epoch if self.by_epoch else runner.iter
            meta = dict(epoch=runner.epoch, iter=runner.iter)
            self._save_checkpoint_with_step(runner, step, meta)
        elif is_main_process():
            file = io.BytesIO()
            info = runner.message_hub.state_dict()["runtime_info"]
            torch.save(dict(of=_identity(self._last_meta), runtime_info=info), file)
            with explain_failed_writing(self.last_ckpt):
                write_atomically(Path(runner.work_dir) / VALIDATED, file.getvalue())

    def _save_checkpoint_with_step(self, runner: Runner, step: int, meta: dict) -> None:
        """Write the checkpoint and last_checkpoint, then remove old checkpoints."""
        outdated = []
        if self.max_keep_ckpts > 0:
            if step not in self.keep_ckpt_ids:
                self.keep_ckpt_ids.append(step)
            # All checkpoints that exist now, so that resuming removes those left over after a kill.
            runner.message_hub.update_info("keep_ckpt_ids", list(self.keep_ckpt_ids))
            while len(self.keep_ckpt_ids) > self.max_keep_ckpts:
                outdated.append(self.keep_ckpt_ids.popleft())
        validated = meta["iter"] == self._validated_at
        meta["validation_due"] = None if validated else "epoch" if self.by_epoch else "iter"

        before = self.last_ckpt
        name = self.filename_tmpl.format(step)
        self.last_ckpt = self.file_backend.join_path(self.out_dir, name)
        runner.message_hub.update_info("last_ckpt", self.last_ckpt)
        self._meta = dict(meta)  # mmengine's FlexibleRunner changes the original
        with whole_files(), explain_failed_writing(before):
            runner.save_checkpoint(
                self.out_dir,
                name,
                self.file_client_args,
                save_optimizer=self.save_optimizer,
                save_param_scheduler=self.save_param_scheduler,
                meta=meta,
                by_epoch=self.by_epoch,
                backend_args=self.backend_args,
                **self.args,
            )
            if is_main_process():
                point_to(self.last_ckpt, Path(runner.work_dir) / "last_checkpoint")
        self._last_meta, self._meta = self._last_meta | self._meta, {}
        if is_main_process():
            for number in outdated:
                path = self.file_backend.join_path(self.out_dir, self.filename_tmpl.format(number))
                if self.file_backend.isfile(path):
                    self.file_backend.remove(path)
                elif self.file_backend.isdir(path):
                    self.file_backend.rmtree(path)

    def _save_best_checkpoint(self, runner: Runner, metrics: dict) -> None:
        """Save the best checkpoint, then remove the former best; mmengine removes first."""
        outdated: list[str] = []
        # As above, so that resuming removes files left over after a kill.
        runner.message_hub.update_info("outdated_best", outdated)
        with whole_files(), explain_failed_writing(self.last_ckpt), Changes() as changes:
            changes.set(self.file_backend, "remove", outdated.append)
            # or mmengine would write it again for the score, which last_validation has
            changes.set(self, "last_ckpt", None)
            super()._save_best_checkpoint(runner, metrics)

    def _remove_outdated_best(self, runner: Runner) -> None:
        best = [self.best_ckpt_path, *self.best_ckpt_path_dict.values()]
        for path in runner.message_hub.get_info("outdated_best", []):
            here = self._here(path)
            if here is not None and here not in best and is_main_process():
                self.file_backend.remove(here)
        runner.message_hub.update_info("outdated_best", [])

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Correct the position that mmengine's FlexibleRunner stores after a validation."""
        if self._meta:  # not the best checkpoint
            checkpoint["meta"].update(self._meta)
            self._last_meta = dict(checkpoint["meta"])

    def after_train(self, runner: Runner) -> None:
        """Publish the checkpoint, if published_keys is set."""
        with whole_files(), explain_failed_writing(self.last_ckpt):
            super().after_train(runner)


def _identity(meta: dict) -> list:
    """Values that tell a checkpoint from others with the same number."""
    return [meta.get(key) for key in ("iter", "time", "experiment_name")]


@contextmanager
def explain_failed_writing(last_good: str | None) -> Iterator[None]:
    """Re-raise a write error with instructions to continue."""
    try:
        yield
    except OSError as error:
        rest = f"the one before it, {last_good}, is intact"
        raise RuntimeError(
            f"{error.filename or 'The checkpoint'} could not be written ({error.strerror}); "
            f"{rest if last_good else 'no checkpoint was saved before'}. Training has ended. Free "
            "disk space, or keep fewer checkpoints (default_hooks.checkpoint.max_keep_ckpts), and "
            "continue with --resume."
        ) from error


@contextmanager
def explain_full_disk(work_dir: str) -> Iterator[None]:
    """Re-raise a log's disk-full error with instructions to continue."""
    try:
        yield
    except OSError as error:
        if error.errno not in _FULL:
            raise
        raise RuntimeError(
            f"Training has ended, because {error.filename or 'a file'} could not be written "
            f"({error.strerror}; {free_space(Path(work_dir))} free in {work_dir}). Its checkpoints "
            "are intact: free disk space and continue with --resume."
        ) from error
