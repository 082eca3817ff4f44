#!/bin/bash
# Train on two machines of eight GPUs with Slurm, a copy of the model on each GPU:
#   sbatch examples/slurm.sh RECIPE [--any_field value]
#
# Each GPU is a task, so no launcher is needed. Five minutes before the time limit, Slurm sends SIGTERM to all processes: the training
# ends its step, saves a checkpoint and exits with 143, and the job is queued again and resumes. `output_dir` must be on a disk that
# all machines share. For FSDP or DeepSpeed, start `accelerate launch` with a configuration on each machine instead (docs/how-to/multiple-gpus.md).
#
# A test runs this file with two tasks on the CPU of one machine, in place of Slurm. It was not run on a cluster or on GPUs.
#SBATCH --job-name=flamingo
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=8
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=8
#SBATCH --time=24:00:00
#SBATCH --signal=TERM@300
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=%x-%j.log

MASTER_ADDR=${MASTER_ADDR:-$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)}
MASTER_PORT=${MASTER_PORT:-$((20000 + SLURM_JOB_ID % 20000))}
export MASTER_ADDR MASTER_PORT

# shellcheck disable=SC2016  # the variables are those of each task
srun --kill-on-bad-exit=1 --wait=300 bash -c '
    export RANK=$SLURM_PROCID LOCAL_RANK=$SLURM_LOCALID WORLD_SIZE=$SLURM_NTASKS LOCAL_WORLD_SIZE=$SLURM_NTASKS_PER_NODE
    exec python -m transformers_flamingo_cli train "$@" --resume_from_checkpoint auto
' task "$@"
code=$?

if [ "$code" -eq 143 ]; then
    echo "Stopped before the time limit. The job is queued again, and resumes."
    scontrol requeue "$SLURM_JOB_ID"
fi
exit "$code"
