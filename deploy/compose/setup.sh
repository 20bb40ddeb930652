#!/bin/sh
# setup.sh NAME...: make what compose.yaml needs, in secrets/: an authority and a certificate of the servers, a user of
# Redis, and a token for each NAME, in secrets/clients/NAME. What is there stays. It needs openssl, and nothing else.
set -eu
umask 077
for name in "$@"; do
    case $name in
    '' | .* | *[!A-Za-z0-9._-]*)
        echo "setup.sh: '$name' is no name: letters, digits, and . _ - within it" >&2
        exit 2
        ;;
    esac
done
cd "$(dirname "$0")"
# Others on this machine do not get past secrets/. What containers are to read is readable within it, since they run as
# other users than the one who made it.
mkdir -p secrets/clients secrets/comity secrets/redis
chmod 700 secrets secrets/clients
chmod 755 secrets/comity secrets/redis

random() { openssl rand -base64 32 | tr '+/' '-_' | tr -d '=\n'; }
sha256() { printf %s "$1" | openssl dgst -sha256 -r | cut -d' ' -f1; }

if [ ! -e secrets/ca.crt ]; then
    openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 3650 -subj '/CN=Comity of this machine' \
        -addext basicConstraints=critical,CA:TRUE -addext keyUsage=critical,keyCertSign,cRLSign \
        -keyout secrets/ca.key -out secrets/ca.crt 2>/dev/null
fi
if [ ! -e secrets/comity/tls.crt ]; then
    openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=comity \
        -keyout secrets/comity/tls.key -out secrets/tls.csr 2>/dev/null
    printf '%s\n' 'subjectAltName=DNS:localhost,DNS:comity-a,DNS:comity-b,IP:127.0.0.1' 'extendedKeyUsage=serverAuth' \
        'basicConstraints=critical,CA:FALSE' 'keyUsage=critical,digitalSignature' 'subjectKeyIdentifier=hash' \
        'authorityKeyIdentifier=keyid' >secrets/tls.ext
    openssl x509 -req -in secrets/tls.csr -CA secrets/ca.crt -CAkey secrets/ca.key -days 365 \
        -set_serial "0x$(openssl rand -hex 16)" -extfile secrets/tls.ext -out secrets/comity/tls.crt 2>/dev/null
    rm secrets/tls.csr secrets/tls.ext
fi
if [ ! -e secrets/comity.env ]; then
    password=$(random)
    printf 'COMITY_STORE=redis://comity:%s@redis\n' "$password" >secrets/comity.env
    # Whoever has no password may ask whether Redis is there, and no more.
    {
        echo 'user default on nopass resetkeys resetchannels -@all +ping'
        echo "user comity on #$(sha256 "$password") ~comity:* resetchannels -@all +info +config|get +time +eval +evalsha" \
            '+get +set +incr +type +hget +hmget +hgetall +hkeys +hlen +hscan +hset +hincrby +hdel +smembers +sadd +srem' \
            '+scard +xadd +xread +xrange +xtrim +zadd +zrem +zscore +zlexcount +zrangebylex +zrangebyscore +zmscore' \
            '+rename +expire +persist +unlink +scan +xlen +xrevrange +zcard' # the last four are for comity copy
    } >secrets/redis/users.acl
fi
[ -e secrets/comity/policy.toml ] || cp policy.toml secrets/comity/policy.toml
touch secrets/comity/tokens
for name in "$@"; do
    [ ! -e "secrets/clients/$name" ] || continue
    token=cmt_$(random)
    printf '%s %s\n' "$name" "$(sha256 "$token")" >>secrets/comity/tokens
    printf '%s\n' "$token" >"secrets/clients/$name"
done
chmod 644 secrets/comity/* secrets/redis/*
