"""What a Redis server does to journals, in Lua: each script is one atomic step. Redis 6.2 or newer, one server.

Keys, all under one prefix, which is `KEYS[1]`:

    routers          sorted set: routers by the time their lease ends, in milliseconds of the server's clock
    running:ROUTER   set: ids of requests that ROUTER is to go on with
    handed:ROUTER    set: those of them that ROUTER was given and has not saved since: the answer may have been lost
    request:ID       hash: head, tenant, fingerprint, holder, term, running (1 or 0), cached
    tokens:ID        string: tokens of the answer, eight hexadecimal characters each
    key:KEY          string: the id and the fingerprint of the request that KEY stands for

A router is `ARGV[1]`, and its requests' terms are decimal numbers.
"""

_COMMON = """
local prefix, me = KEYS[1], ARGV[1]
local time = redis.call('TIME')
local now_ms = time[1] * 1000 + math.floor(time[2] / 1000)

local function is_alive(router)
    local until_ms = redis.call('ZSCORE', prefix .. 'routers', router)
    return until_ms and tonumber(until_ms) > now_ms
end

local function move(id, from, to)
    if from then
        redis.call('SREM', prefix .. 'running:' .. from, id)
        redis.call('SREM', prefix .. 'handed:' .. from, id)
    end
    if to then redis.call('SADD', prefix .. 'running:' .. to, id) end
end

local function stored(id)
    local record = redis.call('HMGET', prefix .. 'request:' .. id, 'head', 'holder', 'term', 'cached', 'running')
    record[6] = redis.call('GET', prefix .. 'tokens:' .. id) or ''
    record[7] = id
    return record
end

local function hold(id, holder, held_term, term)
    local next_term = math.max(tonumber(held_term) + 1, tonumber(term))
    local text = string.format('%.0f', next_term)
    redis.call('HSET', prefix .. 'request:' .. id, 'holder', me, 'term', text)
    move(id, holder, me)
    redis.call('SADD', prefix .. 'handed:' .. me, id)
    return stored(id)
end
"""

UPDATE_ARGUMENTS = 10
# Of an update: id, term, head or nothing, tenant, fingerprint, running, keep_ms, cached, first, tokens.
_UPDATE = """
local SAVED, LOST, UNKNOWN = 0, 1, 2

local function update(i)
    local id, term, head, running, keep_ms = ARGV[i], ARGV[i + 1], ARGV[i + 2], ARGV[i + 5], ARGV[i + 6]
    local offset, tokens = tonumber(ARGV[i + 8]) * 8, ARGV[i + 9]
    local record_key, tokens_key = prefix .. 'request:' .. id, prefix .. 'tokens:' .. id
    local held = redis.call('HMGET', record_key, 'holder', 'term')
    local holder, held_term = held[1], tonumber(held[2] or '0')
    if holder and (held_term > tonumber(term) or (held_term == tonumber(term) and holder ~= me)) then
        move(id, me, nil)
        return LOST
    end
    if head == '' and (not holder or redis.call('STRLEN', tokens_key) < offset) then
        return UNKNOWN
    end
    if head ~= '' then
        redis.call('HSET', record_key, 'head', head, 'tenant', ARGV[i + 3], 'fingerprint', ARGV[i + 4])
    end
    redis.call('HSET', record_key, 'holder', me, 'term', term, 'running', running, 'cached', ARGV[i + 7])
    redis.call('SETRANGE', tokens_key, offset, tokens)
    redis.call('PEXPIRE', record_key, keep_ms)
    redis.call('PEXPIRE', tokens_key, keep_ms)
    move(id, holder, running == '1' and me or nil)
    return SAVED
end
"""

# lease_ms, number of ids to drop, those, updates. Returns whether the lease was held, and fates.
SAVE = (
    _COMMON
    + _UPDATE
    + f"""
local answer = {{is_alive(me) and 1 or 0}}
redis.call('ZADD', prefix .. 'routers', now_ms + ARGV[2], me)
local first = 4 + ARGV[3]
for i = 4, first - 1 do
    if redis.call('HGET', prefix .. 'request:' .. ARGV[i], 'holder') == me then
        redis.call('DEL', prefix .. 'request:' .. ARGV[i], prefix .. 'tokens:' .. ARGV[i])
        move(ARGV[i], me, nil)
    end
end
for i = first, #ARGV, {UPDATE_ARGUMENTS} do
    answer[#answer + 1] = update(i)
end
return answer
"""
)

# key, an update. Returns the value of the key.
BEGIN = (
    _COMMON
    + _UPDATE
    + """
local key = prefix .. 'key:' .. ARGV[2]
local held = redis.call('GET', key)
if held and redis.call('EXISTS', prefix .. 'request:' .. string.match(held, '^%S+')) == 1 then
    return held
end
held = ARGV[3] .. ' ' .. ARGV[7]
redis.call('SET', key, held, 'PX', ARGV[9])
update(3)
return held
"""
)

# id, tenant, fingerprint or nothing, whether to interrupt (1 or 0), term. Returns the request, or nothing.
TAKE = (
    _COMMON
    + """
local id = ARGV[2]
local record = redis.call('HMGET', prefix .. 'request:' .. id, 'holder', 'term', 'tenant', 'fingerprint', 'running')
local holder = record[1]
if not holder or record[3] ~= ARGV[3] then
    return false
end
local differs = ARGV[4] ~= '' and ARGV[4] ~= record[4]
local is_busy = record[5] == '1' and holder ~= me and is_alive(holder)
if differs or (is_busy and ARGV[5] == '0') then
    return stored(id)
end
return hold(id, holder, record[2], ARGV[6])
"""
)

# term, limit. Returns requests, first those whose earlier answer may have been lost.
ADOPT = (
    _COMMON
    + """
local adopted, limit = {}, tonumber(ARGV[3])
for _, id in ipairs(redis.call('SMEMBERS', prefix .. 'handed:' .. me)) do
    if #adopted == limit then
        return adopted
    elseif redis.call('HGET', prefix .. 'request:' .. id, 'holder') == me then
        adopted[#adopted + 1] = stored(id)
    else
        move(id, me, nil)
    end
end
for _, dead in ipairs(redis.call('ZRANGEBYSCORE', prefix .. 'routers', '-inf', now_ms)) do
    while dead ~= me and #adopted < limit do
        local id = redis.call('SRANDMEMBER', prefix .. 'running:' .. dead)
        if not id then
            redis.call('ZREM', prefix .. 'routers', dead)
            break
        end
        local record = redis.call('HMGET', prefix .. 'request:' .. id, 'holder', 'term')
        if record[1] == dead then
            adopted[#adopted + 1] = hold(id, dead, record[2], ARGV[2])
        else
            move(id, dead, nil)
        end
    end
end
return adopted
"""
)

# ids. Says that a router can do nothing with requests that it was given.
REFUSE = _COMMON + "for i = 2, #ARGV do redis.call('SREM', prefix .. 'handed:' .. me, ARGV[i]) end"

LEAVE = _COMMON + "redis.call('ZADD', prefix .. 'routers', 0, me)"
