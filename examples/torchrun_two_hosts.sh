#!/usr/bin/env bash
# Trains one plan on two (or more) hosts. Run the same command on each host; no host needs to be first.
#
#   HEAD=10.0.0.1 INTERFACE=eth0 ./torchrun_two_hosts.sh plan.json data runs/two_hosts
#
# The pack (data) must lie on every host. The run folder is written by rank 0 alone; put it on a shared file system,
# or start the host that holds it with NODE_RANK=0, so that a restart finds the checkpoints.
set -euo pipefail

plan=${1:?give a plan.json} data=${2:?give a pack} out=${3:?give a run folder}

: "${HEAD:?set HEAD to the address of the host where the processes meet}"
: "${PORT:=29500}"      # one free TCP port on HEAD; open it to the other hosts only, it has no password
: "${NODES:=2}"         # hosts
: "${PROCESSES:=1}"     # per host: one for each GPU; on CPUs one for each socket
: "${NODE_RANK:=}"      # set it (0, 1, ...) if the run folder is not shared
: "${RESTARTS:=3}"      # how often a lost process may be replaced before the run gives up
: "${PATIENCE:=600}"    # seconds to wait for a process that does not answer

# Which network card gloo and nccl use. Without it a host with several may offer one that the others cannot reach.
if [ -n "${INTERFACE:-}" ]; then
  export GLOO_SOCKET_IFNAME="$INTERFACE" NCCL_SOCKET_IFNAME="$INTERFACE"
fi

# The number of threads must be the same everywhere, and on every restart, for results equal to the last bit.
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}"

place=(--nnodes "$NODES" --nproc-per-node "$PROCESSES" --max-restarts "$RESTARTS")
if [ -n "$NODE_RANK" ]; then
  place+=(--node-rank "$NODE_RANK" --master-addr "$HEAD" --master-port "$PORT")
else
  place+=(--rdzv-backend c10d --rdzv-endpoint "$HEAD:$PORT" --rdzv-id "$(basename "$out")")
fi

exec torchrun "${place[@]}" -m cerebras_gpt pretrain "$plan" --data "$data" --out "$out" --patience "$PATIENCE"
