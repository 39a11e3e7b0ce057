"""Experts as modules: for make_families.py and tests/interop/check_families.py."""

import torch


class SeparateExperts(torch.nn.ModuleList):
    """Experts as transformers 4 had them, a module each, on which PEFT puts adapters.

    Transformers 5 stacks their matrices; adapters on modules are still what PEFT loads for
    it (converted), and what most adapters are.
    """

    def __init__(self, experts, names):
        super().__init__()
        self.names, self.act = names, lambda x: experts.act_fn(x)  # no module of the list
        gate, up = experts.gate_up_proj.chunk(2, dim=1)
        for matrices in zip(gate, up, experts.down_proj):
            expert = torch.nn.Module()
            for name, matrix in zip(names, matrices):
                linear = torch.nn.Linear(*reversed(matrix.shape), bias=False)
                linear.weight = torch.nn.Parameter(matrix.detach().clone(), requires_grad=False)
                setattr(expert, name, linear)
            self.append(expert)

    def forward(self, x, index, weights):
        y = torch.zeros_like(x)
        for i, expert in enumerate(self):
            gate, up, down = (getattr(expert, name) for name in self.names)
            token, choice = torch.where(index == i)
            out = down(self.act(gate(x[token])) * up(x[token]))
            y.index_add_(0, token, out * weights[token, choice, None])
        return y


def separate_experts(model, prefix):
    names = ("w1", "w3", "w2") if prefix == "Mixtral" else ("gate_proj", "up_proj", "down_proj")
    for layer in model.model.layers:
        if hasattr(layer.mlp, "experts"):
            layer.mlp.experts = SeparateExperts(layer.mlp.experts, names)
    model.config.model_type = "separate experts"  # PEFT would look for stacked ones
