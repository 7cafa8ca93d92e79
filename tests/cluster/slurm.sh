#!/usr/bin/env bash
# A real SLURM of one node on this machine, for tests: slurm.sh start FOLDER | stop FOLDER
# Needs root and the packages slurm-wlm and munge. Prints the path of the slurm.conf to export as SLURM_CONF.
set -euo pipefail
what=$1 folder=$(realpath -m "$2")
mkdir -p "$folder/state" "$folder/spool" "$folder/log"
conf=$folder/slurm.conf

stop() {
    for name in slurmd slurmctld munged; do
        [ -e "$folder/$name.pid" ] && kill "$(cat "$folder/$name.pid")" 2>/dev/null || true
    done
}

start() {
    host=$(hostname -s)
    cores=$(nproc)
    memory=$(awk '/MemTotal/ {print int($2 / 1024 * 0.9)}' /proc/meminfo)
    read -r controller node < <(python3 -c '
import socket
open_ = [socket.socket() for _ in range(2)]
for s in open_: s.bind(("127.0.0.1", 0))
print(*(s.getsockname()[1] for s in open_))')
    chmod 755 "$folder"
    dd if=/dev/urandom of="$folder/munge.key" bs=1024 count=1 2>/dev/null
    chmod 400 "$folder/munge.key"
    munged --force --key-file="$folder/munge.key" --socket="$folder/munge.socket" --pid-file="$folder/munged.pid" \
        --log-file="$folder/log/munged.log" --seed-file="$folder/munge.seed"
    cat > "$conf" <<EOF
ClusterName=bench
SlurmctldHost=$host(127.0.0.1)
SlurmctldPort=$controller
SlurmdPort=$node
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket=$folder/munge.socket
CredType=cred/munge
StateSaveLocation=$folder/state
SlurmdSpoolDir=$folder/spool
SlurmctldPidFile=$folder/slurmctld.pid
SlurmdPidFile=$folder/slurmd.pid
SlurmctldLogFile=$folder/log/slurmctld.log
SlurmdLogFile=$folder/log/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
MpiDefault=none
ReturnToService=2
SchedulerParameters=bf_interval=1,sched_interval=1
KillWait=5
OverTimeLimit=0
NodeName=$host NodeAddr=127.0.0.1 CPUs=$cores RealMemory=$memory State=UNKNOWN
PartitionName=test Nodes=$host Default=YES MaxTime=INFINITE State=UP
EOF
    slurmctld -f "$conf"
    slurmd -f "$conf"
    for _ in $(seq 60); do
        [ "$(SLURM_CONF=$conf sinfo -h -o %T 2>/dev/null)" = idle ] && { echo "$conf"; return; }
        sleep 0.5
    done
    tail -5 "$folder"/log/*.log >&2
    stop
    exit 1
}

"$what"
