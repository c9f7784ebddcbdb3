default_scope = 'mmdet'
# registers our parts; lets --cfg-options data_root=... change all that derives from it
custom_imports = dict(
    imports=['fastdetr_mmdet', 'fastdetr_mmdet.utils.derived_keys'], allow_failed_imports=False)

default_hooks = dict(
    timer=dict(type='IterTimerHook'),
    logger=dict(type='LoggerHook', interval=50),
    param_scheduler=dict(type='ParamSchedulerHook'),
    sampler_seed=dict(type='DistSamplerSeedHook'),
    visualization=dict(type='DetVisualizationHook'),
    # This package's (docs/resume.md). To leave some out, set default_hooks=dict(_delete_=True, ...)
    # with the others.
    # Whole files or none; costs an fsync a checkpoint. type='CheckpointHook' has mmengine's.
    checkpoint=dict(type='AtomicCheckpointHook', interval=1, max_keep_ckpts=3, save_best='auto'),
    # Resumed training continues as if never interrupted; seeds generators for every image (0.1 ms).
    exact_resume=dict(type='ExactResumeHook'),
    # Resumed training follows the config; costs at most a second when a schedule has changed.
    resume_check=dict(type='ResumeCheckHook'))
# This package's checks. To leave some out, set custom_hooks to a list of the others.
custom_hooks = [
    # Model, data sets and evaluators belong together; looks at every object once before the start.
    dict(type='DatasetClassesCheckHook'),
    # Annotations and images are sound (docs/data_check.md); reads the headers of all images.
    dict(type='DatasetCheckHook'),
    # Stops at a loss or gradient that is not finite; costs no wait with clip_grad, else one a step.
    dict(type='NumbersCheckHook')]

env_cfg = dict(
    cudnn_benchmark=False,
    mp_cfg=dict(mp_start_method='fork', opencv_num_threads=0),
    dist_cfg=dict(backend='nccl'))

vis_backends = [dict(type='LocalVisBackend')]
visualizer = dict(type='DetLocalVisualizer', vis_backends=vis_backends, name='visualizer')
log_processor = dict(type='LogProcessor', window_size=50, by_epoch=True)

log_level = 'INFO'
load_from = None
resume = False
