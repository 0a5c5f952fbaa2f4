#!/bin/bash
# Runs inside a booted container, as root; writes a line for each case to /out/results.
# Units are made here, but for those of packaging/systemd, which are tested as they are.

result() { echo "$1" >>/out/results; }
passed() { result "ok $1"; }
failed() { result "not ok $1: $2"; }

# check NAME CONDITION...: a case that holds when the condition does, at the latest after 15 s.
check() {
    local name=$1 i
    shift
    for i in $(seq 150); do
        if "$@" >/dev/null 2>&1; then passed "$name"; return; fi
        sleep 0.1
    done
    failed "$name" "$*; $(systemctl status --no-pager -l "${unit:-}" 2>&1 | tail -n 6 | tr '\n' '|')"
}

# unit NAME TYPE COMMAND [LINES]: makes a unit that runs COMMAND, and sets $unit.
unit() {
    unit=$1.service
    printf '[Service]\nType=%s\nExecStart=%s\nKillMode=mixed\nTimeoutStopSec=20\nTimeoutStartSec=20\n%s\n' \
        "$2" "$3" "${4:-}" >"/run/systemd/system/$unit"
    systemctl daemon-reload
}

wrapper=/usr/bin/service-registry-wrapper
listed() { raxsr services get "$1"; }
unlisted() { ! listed "$1"; }
property() { [ "$(systemctl show -P "$1" "$unit")" = "$2" ]; }
happened() { raxsr -f json events list --limit 1000 | tr -d ' \n' | grep -q "\"type\":\"$1\",\"payload\":{\"id\":\"$2\""; }
contains() { systemctl show -P "$1" "$unit" | grep -q -- "$2"; }

# --- exec and simple: what ends by SIGTERM has succeeded, and left the registry before it was told
for type in exec simple; do
    unit $type $type "$wrapper --id=$type-1 /bin/sleep 600"
    systemctl start $type
    check "$type: registered" listed $type-1
    systemctl stop $type
    check "$type: stopped" property Result success
    check "$type: unlisted" unlisted $type-1
    check "$type: removed and not timed out" happened service.remove $type-1
done
unit missing exec "$wrapper --id=missing-1 /no/such/command"
systemctl start missing
check "missing command: 127" property ExecMainStatus 127

# --- the order of a stop, whom it reaches, and a reload
cat >/run/orderly <<'SCRIPT'
#!/bin/bash
look() { raxsr services get "$1" >/dev/null 2>&1; echo "listed: $?" >>/run/$1.log; }
trap 'look '"$1"'; exit 0' TERM
trap 'echo reloaded >>/run/'"$1"'.log' HUP
while :; do sleep 0.05; done
SCRIPT
chmod +x /run/orderly
unit mixed exec "$wrapper --id=mixed-1 /run/orderly mixed-1" 'ExecReload=/bin/kill -HUP $MAINPID'
systemctl start mixed
check "mixed: registered" listed mixed-1
systemctl reload mixed
check "reload: reaches the command" grep -q reloaded /run/mixed-1.log
systemctl stop mixed
check "mixed: unlisted before the signal" grep -q 'listed: 3' /run/mixed-1.log
unit group exec "$wrapper --id=group-1 /bin/sleep 600" 'KillMode=control-group'
systemctl start group
check "control-group: registered" listed group-1
systemctl stop group
check "control-group: stopped" property Result success
check "control-group: removed" happened service.remove group-1

# --- notify: from a command that speaks, and for one that does not
cat >/run/speaker <<'SCRIPT'
#!/usr/bin/python3
import os, socket, sys, time
def say(text):
    s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    name = os.environ['NOTIFY_SOCKET']
    s.connect('\0' + name[1:] if name[0] == '@' else name)
    s.send(text.encode())
say('READY=1\nSTATUS=speaking')
beats = int(sys.argv[1])
while True:
    if beats: say('WATCHDOG=1')
    beats = max(0, beats - 1)
    time.sleep(0.2)
SCRIPT
chmod +x /run/speaker
unit speaker notify "$wrapper --id=speaker-1 /run/speaker 0"
systemctl start speaker && passed "notify: a command that speaks" || failed "notify: a command that speaks" start
check "notify: its status and the lease's" contains StatusText 'speaking; registered'
check "notify: the wrapper is the main process" contains ExecMainPID "$(pgrep -x service-registr | tail -n 1)"
systemctl stop speaker
check "notify: stopped" property Result success
unit silent notify "$wrapper --id=silent-1 --notify=registered /bin/sleep 600"
systemctl start silent
listed silent-1 && passed "notify: started means registered" || failed "notify: started means registered" "$(raxsr services list)"
check "notify: status" contains StatusText registered
systemctl stop silent
unit nobody notify "$wrapper --id=nobody-1 /bin/sleep 600" 'TimeoutStartSec=2'
systemctl start nobody && failed "notify: nobody says it" started || passed "notify: nobody says it, and systemd gives up"

# --- a drain that takes longer than systemd would wait, with time left for the command
cat >/run/drained <<'SCRIPT'
#!/bin/bash
trap 'raxsr services get drain-1 >/dev/null 2>&1; echo "listed: $?" >>/run/drain.log; sleep 4; echo stopped >>/run/drain.log; exit 0' TERM
while :; do sleep 0.05; done
SCRIPT
chmod +x /run/drained
unit drain notify "$wrapper --id=drain-1 --notify=registered --drain=5s /run/drained" 'TimeoutStopSec=2'
systemctl start drain
systemctl stop --no-block drain
check "drain: out of the registry first" unlisted drain-1
check "drain: shown in the status" contains StatusText 'draining, to be stopped in'
[ -e /run/drain.log ] && failed "drain: serves on" "$(cat /run/drain.log)" || passed "drain: serves on"
check "drain: over" property ActiveState inactive
check "drain: not killed" property Result success
check "drain: the command had its own time" grep -q stopped /run/drain.log
check "drain: unlisted before the signal" grep -q 'listed: 3' /run/drain.log
unit deaf exec "$wrapper --id=deaf-1 --drain=60s /run/drained" 'TimeoutStopSec=2'
systemctl start deaf
check "drain: registered" listed deaf-1
systemctl stop deaf
check "drain: cannot ask for time without NotifyAccess" property Result timeout
unit access exec "$wrapper --id=access-1 --drain=5s /bin/sleep 600" $'TimeoutStopSec=2\nNotifyAccess=main'
systemctl start access
check "drain: registered with NotifyAccess" listed access-1
systemctl stop access
check "drain: not killed with NotifyAccess" property Result success
unit stuck notify "$wrapper --id=stuck-1 --notify=registered --drain=1s --stop-timeout=2s /run/stuck" 'TimeoutStopSec=1'
printf '#!/bin/bash\ntrap "" TERM\nwhile :; do sleep 0.05; done\n' >/run/stuck
chmod +x /run/stuck
systemctl start stuck
systemctl stop stuck
check "drain: --stop-timeout counts from the signal, and kills" property ExecMainStatus 9
check "drain: it is the wrapper that does so, not systemd" property Result signal

# --- notify-reload, where systemd has it: from a command that reports its reload, and for one that does not
if [ "$(systemctl --version | sed -n 's/^systemd \([0-9]*\).*/\1/p')" -ge 253 ]; then
    cat >/run/reporter <<'SCRIPT'
#!/usr/bin/python3
import os, signal, socket, time
def say(text):
    s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    s.connect('\0' + os.environ['NOTIFY_SOCKET'][1:])
    s.send(text.encode())
def reload(*_):
    say('RELOADING=1\nMONOTONIC_USEC=%d' % (time.monotonic_ns() // 1000))
    open('/run/reporter.log', 'w').write('reloaded')
    say('READY=1')
signal.signal(signal.SIGHUP, reload)
say('READY=1')
while True: time.sleep(600)
SCRIPT
    chmod +x /run/reporter
    unit reporter notify-reload "$wrapper --id=reporter-1 /run/reporter"
    systemctl start reporter
    timeout 15 systemctl reload reporter && passed "notify-reload: reported" || failed "notify-reload: reported" reload
    check "notify-reload: it did reload" grep -q reloaded /run/reporter.log
    check "notify-reload: and runs" property ActiveState active
    systemctl stop reporter
    unit mute notify-reload "$wrapper --id=mute-1 --notify=registered /run/orderly mute-1"
    systemctl start mute
    timeout 15 systemctl reload mute && passed "notify-reload: answered for it" || failed "notify-reload: answered for it" reload
    check "notify-reload: it got the signal" grep -q reloaded /run/mute-1.log
    systemctl stop mute
fi

# --- the watchdog is the command's: what stops pinging is systemd's to kill
unit watchdog notify "$wrapper --id=watchdog-1 /run/speaker 10" $'WatchdogSec=1\nWatchdogSignal=SIGKILL'
systemctl start watchdog
check "watchdog: alive while it pings" listed watchdog-1
check "watchdog: killed when it stops" property Result watchdog

# --- socket activation
cat >/run/activated <<'SCRIPT'
#!/usr/bin/python3
import os, socket
assert os.environ['LISTEN_PID'] == str(os.getpid()) and os.environ['LISTEN_FDS'] == '1'
s = socket.socket(fileno=3)
while True:
    c, _ = s.accept(); c.send(b'served\n'); c.close()
SCRIPT
chmod +x /run/activated
printf '[Socket]\nListenStream=/run/activated.sock\n' >/run/systemd/system/activated.socket
unit activated exec "$wrapper --id=activated-1 /run/activated"
systemctl start activated.socket
check "socket activation: served" python3 -c "
import socket; s = socket.socket(socket.AF_UNIX); s.connect('/run/activated.sock'); assert s.recv(9) == b'served\n'"
check "socket activation: registered" listed activated-1
systemctl stop activated.socket activated

# --- hardened
unit hardened exec "$wrapper --registry sqlite:///var/lib/hardened/registry.db --id=hardened-1 /bin/sleep 600" \
    'DynamicUser=yes
StateDirectory=hardened
ProtectSystem=strict
ProtectHome=yes
PrivateTmp=yes
PrivateDevices=yes
NoNewPrivileges=yes
MemoryDenyWriteExecute=yes
RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6
RestrictNamespaces=yes
LockPersonality=yes
SystemCallArchitectures=native
SystemCallFilter=@system-service
CapabilityBoundingSet='
systemctl start hardened
check "hardened: registered" raxsr --registry sqlite:///var/lib/hardened/registry.db services get hardened-1
check "hardened: runs" property ActiveState active
systemctl stop hardened
check "hardened: stopped" property Result success

# --- the journal has levels, and no second time of day
unit levels exec "$wrapper --registry sqlite:///proc/nowhere/registry.db --id=levels-1 /bin/sleep 600"
systemctl start levels
journal_has() { journalctl -u levels.service -o json --no-pager | grep '"PRIORITY":"4"' | grep -q '"MESSAGE":"cannot register'; }
check "journal: a warning is one" journal_has
systemctl stop levels

# --- a daemon that forks away: followed by its pid file, as Type=exec (Type=forking would wait for the wrapper to fork)
cat >/run/forker <<'SCRIPT'
#!/bin/sh
setsid sh -c 'trap "exit 0" TERM; echo $$ >/run/forker.pid; while :; do sleep 0.1; done' &
until [ -s /run/forker.pid ]; do sleep 0.01; done
SCRIPT
chmod +x /run/forker
unit forker exec "$wrapper --id=forker-1 --pid-file=/run/forker.pid /run/forker"
systemctl start forker
check "forks away: registered" listed forker-1
sleep 1
check "forks away: followed" property ActiveState active
systemctl stop forker
check "forks away: stopped" property Result success

# --- the units that we ship
fetch() { exec 3<>"/dev/tcp/127.0.0.1/$1" && printf 'GET / HTTP/1.0\r\n\r\n' >&3 && grep -q '^HTTP/1' <&3; }
for name in nginx apache mariadb; do
    unit=registered-$name.service
    systemctl start $unit
    check "$name: active" property ActiveState active
    check "$name: registered" listed "$(hostname)-$name"
    case $name in
        mariadb) check "mariadb: serves" mariadb -e 'SELECT 1' ;;
        *)
            check "$name: serves" fetch 80
            systemctl reload $unit
            check "$name: serves after a reload" fetch 80
            check "$name: still active" property ActiveState active ;;
    esac
    systemctl stop $unit
    check "$name: stopped" property Result success
    check "$name: removed" happened service.remove "$(hostname)-$name"
done
unit=wrapped-service.service
systemctl start $unit
check "generic: registered" listed "$(hostname)-wrapped-service"
check "generic: serves" fetch 8000
systemctl stop $unit
check "generic: stopped" property Result success

# --- the server over root's own registry
unit=service-registry.service
systemctl start $unit
through() { raxsr --registry http://127.0.0.1:8640/v1.0 services get "$1"; }
through simple-none >/dev/null 2>&1
[ $? = 3 ] && passed "server: answers when it has started" || failed "server: answers when it has started" "no answer"
unit beside exec "$wrapper --id=beside-1 /bin/sleep 600"
systemctl start beside
check "server: shows what is registered on the file" through beside-1
unit remote exec "$wrapper --registry=http://127.0.0.1:8640/v1.0 --id=remote-1 /bin/sleep 600"
systemctl start remote
check "server: registers" listed remote-1
unit=service-registry.service
systemctl kill -s KILL $unit
check "server: is restarted" property NRestarts 1
check "server: knows everybody" through remote-1
systemctl reload $unit
systemctl stop remote beside
check "server: deregisters" unlisted remote-1
systemctl stop $unit
check "server: stopped" property Result success

# --- daemons in the form that forks away, and behind a shell that ignores signals
runs() { pgrep -x "$1"; }
gone() { ! runs "$1"; }
mkdir -p /run/apache2 /run/lock/apache2
# (Debian's apache2ctl would have systemd start Apache, were it not told that systemd already does.)
export APACHE_STARTED_BY_SYSTEMD=yes
$wrapper --id=forks-apache apache2ctl start 2>/run/told
check "apache2ctl start: told" grep -q 'what it started runs on, unregistered.*name="apache2"' /run/told
apache2ctl stop
check "apache2ctl start: stopped by hand" gone apache2
$wrapper --id=forks-nginx nginx 2>/run/told
check "nginx with daemon on: told" grep -q 'what it started runs on, unregistered.*name="nginx"' /run/told
nginx -s stop
check "nginx with daemon on: stopped by hand" gone nginx
unit ctl exec "$wrapper --id=ctl-1 --signal-group --stop-signal=WINCH /usr/sbin/apache2ctl -DFOREGROUND"
systemctl start ctl
check "apache2ctl in the foreground: serves" fetch 80
systemctl stop ctl
check "apache2ctl in the foreground: all of it stopped" gone apache2
check "apache2ctl in the foreground: removed" happened service.remove ctl-1
install -m 755 -o mysql -g root -d /run/mysqld
unit safe exec "$wrapper --id=safe-1 --signal-group /usr/bin/mysqld_safe --user=mysql"
systemctl start safe
check "mysqld_safe: serves" mariadb -e 'SELECT 1'
systemctl stop safe
check "mysqld_safe: all of it stopped" gone mariadbd
check "mysqld_safe: by its own will" property Result success
check "mysqld_safe: removed" happened service.remove safe-1

result "done"
systemctl --no-block exit 0
