"""
Train a reward model on pairs of answers to an image, with the stock `Trainer` and the loss of Bradley and Terry.

    python examples/reward_model.py

It starts from the shipped Flamingo that binds words to images, and learns that an answer which names the color of the image is
better than one which names another.
"""

import torch
from PIL import Image
from transformers import AutoModelForSequenceClassification, AutoProcessor, Trainer, TrainingArguments, set_seed

from transformers_flamingo_miniature.few_shot import few_shot_model_path


class PairTrainer(Trainer):
    """A stock `Trainer` with the loss of pairs. The first half of a batch was chosen, and the second rejected."""

    loss_is_scaled_for_ga = False  # it is the mean of a batch

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        """Compute the negative logarithm of the probability that the chosen answers win."""
        outputs = model(**inputs)
        chosen, rejected = outputs.logits.squeeze(-1).chunk(2)
        loss = -torch.nn.functional.logsigmoid(chosen - rejected).mean()
        return (loss, outputs) if return_outputs else loss


def main(max_steps: int = 20) -> float:
    """Train, print the rewards, and return how often the chosen answer has the higher one."""
    set_seed(0)
    processor = AutoProcessor.from_pretrained(few_shot_model_path())
    model = AutoModelForSequenceClassification.from_pretrained(few_shot_model_path(), num_labels=1)
    model.freeze_backbones()  # trains `score`, the resampler and the gated blocks

    def collate(rows):
        texts = [f"<image>a {row[side]} circle" for side in ("chosen", "rejected") for row in rows]
        return processor(images=[[row["image"]] for row in rows] * 2, text=texts, padding=True, return_tensors="pt")

    pairs = [("red", "blue"), ("blue", "red")]
    rows = [{"image": Image.new("RGB", (64, 64), a), "chosen": a, "rejected": b} for a, b in pairs]
    arguments = TrainingArguments(
        "reward-model", max_steps=max_steps, per_device_train_batch_size=2, learning_rate=1e-3,
        remove_unused_columns=False, save_strategy="no", report_to="none", use_cpu=True,
    )  # fmt: skip
    PairTrainer(model, arguments, train_dataset=rows, data_collator=collate).train()

    with torch.no_grad():
        rewards = model.eval()(**collate(rows)).logits.squeeze(-1)
    print("rewards of the chosen and of the rejected answers:", rewards.view(2, -1).tolist())
    return (rewards[: len(rows)] > rewards[len(rows) :]).float().mean().item()


if __name__ == "__main__":
    main()
