#!/usr/bin/env bash
# A Slurm cluster of one node, this machine, for as long as one command runs:
#
#     sudo apt-get install slurmctld slurmd slurm-client munge
#     workflow/slurm_here.sh COMMAND...
#
# Everything it writes is in a temporary folder, everything it starts listens on loopback and is stopped
# at the end, whatever the end is. It touches no configuration of the system. Needs root (a container's will do),
# since the daemons do. There is no accounting database: ask squeue for a job's state, not sacct.
set -euo pipefail
[ $# -gt 0 ] || { sed -n '2,9s/^# \?//p' "$0"; exit 2; }
PATH=$PATH:/usr/sbin
for program in munged slurmctld slurmd squeue; do
    command -v "$program" >/dev/null || { echo "$0: $program is not installed, see the first lines of this script" >&2; exit 1; }
done

folder=$(mktemp -d "${TMPDIR:-/tmp}/slurm.XXXXXX")
node=$(hostname -s)
export SLURM_CONF=$folder/slurm.conf
daemons=()

stop() {
    trap '' INT TERM
    scancel --user "$(id -un)" 2>/dev/null || true
    for _ in $(seq 50); do [ -n "$(squeue -h 2>/dev/null)" ] || break; sleep 0.2; done
    for ((i = ${#daemons[@]} - 1; i >= 0; i--)); do
        kill "${daemons[i]}" 2>/dev/null || true
        wait "${daemons[i]}" 2>/dev/null || true
    done
    rm -rf "$folder"
}
trap stop EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

start() {  # in a session of its own: Ctrl-C is for the command, which still needs its cluster to cancel its jobs
    setsid "$@" >>"$folder/log" 2>&1 </dev/null &
    daemons+=($!)
}

within() {  # seconds command...: try until it succeeds
    for _ in $(seq "$(($1 * 5))"); do "${@:2}" >/dev/null 2>&1 && return; sleep 0.2; done
    echo "$0: no success in $1 seconds: ${*:2}. The end of the log:" >&2
    tail -n 20 "$folder/log" >&2
    exit 1
}

node_is_idle() { [ "$(sinfo -h -o %t)" = idle ]; }

mkdir "$folder/bin" "$folder/state" "$folder/spool"
chmod 711 "$folder"
(umask 077 && head -c 1024 /dev/urandom >"$folder/munge.key")
# Snakemake's jobs call srun without SLURM_CONF, so this srun comes first in their PATH and knows it.
printf '#!/bin/sh\nSLURM_CONF=%q exec %q "$@"\n' "$SLURM_CONF" "$(command -v srun)" >"$folder/bin/srun"
chmod 755 "$folder/bin/srun"
PATH=$folder/bin:$PATH
hardware=$(slurmd -C | head -n 1)   # NodeName=… CPUs=… RealMemory=…
cat >"$SLURM_CONF" <<CONF
ClusterName=here
SlurmctldHost=$node(127.0.0.1)
SlurmctldPort=${SLURM_HERE_PORT:-16817}
SlurmdPort=$((${SLURM_HERE_PORT:-16817} + 1))
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket=$folder/munge.socket
StateSaveLocation=$folder/state
SlurmdSpoolDir=$folder/spool
SlurmctldPidFile=$folder/slurmctld.pid
SlurmdPidFile=$folder/slurmd.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
MpiDefault=none
CommunicationParameters=NoCtldInAddrAny,NoInAddrAny
ReturnToService=2
MinJobAge=300
$hardware NodeAddr=127.0.0.1
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE
CONF

start munged --foreground --force --key-file="$folder/munge.key" --socket="$folder/munge.socket" \
    --pid-file="$folder/munged.pid" --log-file="$folder/munged.log" --seed-file="$folder/munged.seed"
within 10 test -S "$folder/munge.socket"
start slurmctld -D
start slurmd -D
within 30 node_is_idle
"$@"
