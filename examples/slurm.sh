#!/usr/bin/env bash
#SBATCH --job-name=cerebras-gpt
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=32
#SBATCH --time=24:00:00
#SBATCH --signal=B:TERM@120
#SBATCH --requeue
#SBATCH --open-mode=append
# Trains one plan on the hosts of a Slurm job:   sbatch slurm.sh plan.json data /shared/runs/mine
#
# Two minutes before the time is over Slurm sends SIGTERM: the run saves itself and ends, and the job is
# queued again; it then goes on, on however many hosts it gets. Slurm queues it again after a node failure by itself.
# One task a node: torchrun starts the processes of the node, one for each GPU. Plan, pack and run folder are shared.
set -euo pipefail

plan=${1:?give a plan.json} data=${2:?give a pack} out=${3:?give a run folder}

processes=${SLURM_GPUS_ON_NODE:-1}
head=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}"   # the same on every restart
# export GLOO_SOCKET_IFNAME=ib0 NCCL_SOCKET_IFNAME=ib0   # if the hosts have several networks

srun torchrun \
  --nnodes "$SLURM_JOB_NUM_NODES" --nproc-per-node "$processes" --max-restarts 3 \
  --rdzv-backend c10d --rdzv-endpoint "$head:29500" --rdzv-id "$SLURM_JOB_ID" \
  -m cerebras_gpt pretrain "$plan" --data "$data" --out "$out" &
steps=$!

# bash hears SIGTERM (B:) and hands it on; the first wait ends with it, the second one waits for the save.
trap 'kill -TERM "$steps"' TERM
wait "$steps" || code=$?
if [ "${code:-0}" -gt 128 ]; then
  wait "$steps" || code=$?
  scontrol requeue "$SLURM_JOB_ID"
fi
exit "${code:-0}"
