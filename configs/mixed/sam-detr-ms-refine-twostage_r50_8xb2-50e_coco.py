_base_ = '../sam_detr/sam-detr-ms_r50_8xb2-50e_coco.py'

# The encoder's three levels propose the boxes, and every layer refines them on its own level.
model = dict(
    transformer=dict(
        queries=dict(_delete_=True, type='TwoStageQueries'), decoder=dict(refine=True)))
