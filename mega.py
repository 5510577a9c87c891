import sys, numpy as np
from megatron.core.datasets.indexed_dataset import IndexedDataset
from manifest.artifact import open_artifact, open_streams
mix=open_artifact(sys.argv[1],'mixture'); out=sys.argv[2]
for name,stream in open_streams(mix).items():
    for mmap in (True, False):
        d=IndexedDataset(f"{out}/{name}_text_document", mmap=mmap)
        assert len(d)==mix.manifest.streams[name].documents and len(d.document_indices)==len(d)+1
        got=np.concatenate([d[i] for i in range(len(d))])
        assert got.dtype==stream.shards[0].tokens.dtype, got.dtype
        assert np.array_equal(got, stream.read(0,stream.tokens)); print(name,len(d),len(got),got.dtype,'ok')
from megatron.core.datasets.blended_megatron_dataset_builder import BlendedMegatronDatasetBuilder
from megatron.core.datasets.gpt_dataset import GPTDataset, GPTDatasetConfig
from megatron.core.datasets.utils import get_blend_from_list
class T:
    eod=0; pad=1; unique_identifiers={"t":1}; vocab_size=4096
phase=mix.manifest.phases[-1]
seq=2048; n=phase.blocks*mix.manifest.block_tokens//seq
cfg=GPTDatasetConfig(random_seed=1,sequence_length=seq,blend=get_blend_from_list(open(f"{out}/blends/{phase.name}.txt").read().split()),split="100,0,0",reset_position_ids=False,reset_attention_mask=False,eod_mask_loss=False,tokenizer=T(),path_to_cache="/tmp/export/cache")
import torch.distributed as dist
dist.init_process_group("gloo",init_method="tcp://127.0.0.1:29511",rank=0,world_size=1)
tr,_,_=BlendedMegatronDatasetBuilder(GPTDataset,[n,0,0],lambda:True,cfg).build()
from collections import Counter
c=Counter(int(i) for i in tr.dataset_index); print(n,len(tr),[(tr.datasets[i].dataset.path_prefix.split('/')[-1],k*seq) for i,k in c.items()]); print(tr[0]['tokens'][:8])
