default_scope = 'mmdet'
# registers this package's parts; makes derived values follow --cfg-options data_root=...
custom_imports = dict(
    imports=['fastdetr_mmdet', 'fastdetr_mmdet.utils.derived_keys'], allow_failed_imports=False)

default_hooks = dict(
    timer=dict(type='IterTimerHook'),
    logger=dict(type='LoggerHook', interval=50),
    param_scheduler=dict(type='ParamSchedulerHook'),
    sampler_seed=dict(type='DistSamplerSeedHook'),
    visualization=dict(type='DetVisualizationHook'),
    # This package's hooks (docs/resume.md). To remove one, set default_hooks=dict(_delete_=True,
    # ...) with the others.
    # Checkpoints are complete or absent; costs one fsync each.
    checkpoint=dict(type='AtomicCheckpointHook', interval=1, max_keep_ckpts=3, save_best='auto'),
    # Resumed training equals uninterrupted training; seeds generators per image (0.1 ms).
    exact_resume=dict(type='ExactResumeHook'),
    # Resumed training uses the config's settings; costs at most a second if a schedule changed.
    resume_check=dict(type='ResumeCheckHook'))
# This package's checks. To remove one, set custom_hooks to a list of the others.
custom_hooks = [
    # Model, datasets and evaluators must match; reads every object once before the start.
    dict(type='DatasetClassesCheckHook'),
    # Annotations and images must be valid (docs/data_check.md); reads the headers of all images.
    dict(type='DatasetCheckHook'),
    # Stops at NaN or infinite losses and gradients; without clip_grad waits for the device once a
    # step.
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
