default_scope = 'mmdet'
# registers our parts; lets --cfg-options data_root=... change all that derives from it
custom_imports = dict(
    imports=['fastdetr_mmdet', 'fastdetr_mmdet.utils.derived_keys'], allow_failed_imports=False)

default_hooks = dict(
    timer=dict(type='IterTimerHook'),
    logger=dict(type='LoggerHook', interval=50),
    param_scheduler=dict(type='ParamSchedulerHook'),
    # whole files or none, and training goes on from them as if never interrupted: docs/resume.md
    checkpoint=dict(type='AtomicCheckpointHook', interval=1, max_keep_ckpts=3, save_best='auto'),
    exact_resume=dict(type='ExactResumeHook'),
    resume_check=dict(type='ResumeCheckHook'),
    sampler_seed=dict(type='DistSamplerSeedHook'),
    visualization=dict(type='DetVisualizationHook'))
custom_hooks = [
    dict(type='DatasetClassesCheckHook'), dict(type='DatasetCheckHook'),
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
