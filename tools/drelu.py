"""dReLU for transformers: act(gate) * act(up) with act = relu, in the MLPs of Llama, Mistral and Mixtral.

transformers knows no such activation; apply(model) patches a model that is already built. It is the oracle for stoke's
"drelu" (the TurboSparse and Bamboo models' activation).
"""

import types

import torch
import torch.nn.functional as F


def dense_forward(self, x):
    return self.down_proj(F.relu(self.gate_proj(x)) * F.relu(self.up_proj(x)))


def experts_forward(self, hidden_states, top_k_index, top_k_weights):
    """The straightforward loop over experts, whose fused matrix holds the gate's rows first."""
    out = torch.zeros_like(hidden_states)
    for expert in range(self.gate_up_proj.shape[0]):
        token, rank = torch.where(top_k_index == expert)
        if token.numel() == 0:
            continue
        gate, up = F.linear(hidden_states[token], self.gate_up_proj[expert]).chunk(2, dim=-1)
        y = F.linear(F.relu(gate) * F.relu(up), self.down_proj[expert])
        out.index_add_(0, token, y * top_k_weights[token, rank, None])
    return out


def apply(model):
    for module in model.modules():
        if hasattr(module, "gate_up_proj") and isinstance(module.gate_up_proj, torch.nn.Parameter):
            module.forward = types.MethodType(experts_forward, module)
        elif hasattr(module, "gate_proj") and hasattr(module, "up_proj"):
            module.forward = types.MethodType(dense_forward, module)
