-- Shared by every script: key names, the clock, and `refresh`, which alone decides who is in line.
--
-- ARGV[1] is a JSON object. KEYS, all with one hash tag:
--   meta    hash   state (ready or rebuilding), last (latest time seen), grace_until, run_id, settings (their number)
--   config  hash   "<scope>:<name>:<field>" -> number: caps, slots, weights, pauses
--   job     hash   id -> JSON [user, pool, band, base, seq, epoch, cost, run_at]; band is after ageing, base before
--   pend    zset   "<pool>|<user>|<band>|<seq>|<id>", all scores 0: every user's line in one lexical order
--   delayed zset   id -> time it becomes ready
--   lease   zset   id -> time it expires; the only meaning of "is running"
--   holder  hash   id -> JSON {token, owner, cancel}
--   run     zset   "u|<user>|<id>" and "p|<pool>|<id>", all scores 0: running jobs are counted, never kept as a number
--   vt      hash   "<pool>|<user>" -> virtual time of the user; "<pool>|" -> virtual clock of the pool
--   age     zset   id -> time of the next lift
--   ready   zset   one a pool: user -> band of his first job, then his virtual time; only users who may start one now

local names = {'meta', 'config', 'job', 'pend', 'delayed', 'lease', 'holder', 'run', 'vt', 'age'}
local KEY = {}
for i, name in ipairs(names) do KEY[name] = KEYS[i] end
local args = cjson.decode(ARGV[1])
local READY = {}
for i, pool in ipairs(args.pools) do READY[pool] = KEYS[#names + i] end

-- A band is worth more than any virtual time; 10 bands stay exact in a double.
local BAND_WEIGHT = 2 ^ 49

local call = redis.call

-- Redis's own clock, ms. It never goes back: delayed jobs and leases must not become younger.
local function clock()
  local time = args.now
  if not time then
    local parts = call('TIME')
    time = parts[1] * 1000 + math.floor(parts[2] / 1000)
  end
  local last = tonumber(call('HGET', KEY.meta, 'last') or 0)
  if time <= last then return last end
  call('HSET', KEY.meta, 'last', time)
  return time
end

local function wake() call('PUBLISH', args.channel, '') end

-- Numbers of the fields of a hash by name, in one command; fields that are missing are missing.
local function numbers(key, fields)
  local found, values = {}, call('HMGET', key, unpack(fields))
  for i, field in ipairs(fields) do found[field] = tonumber(values[i] or nil) end
  return found
end

local function settings(...) return numbers(KEY.config, {...}) end

local function count(prefix) return call('ZLEXCOUNT', KEY.run, '[' .. prefix, '[' .. prefix .. '\255') end

-- Without the names a job takes a ninth less of Redis's memory.
local FIELDS = {'user', 'pool', 'band', 'base', 'seq', 'epoch', 'cost', 'run_at'}

local function read_job(text)
  local job, values = {}, cjson.decode(text)
  for i, field in ipairs(FIELDS) do job[field] = values[i] end
  return job
end

local function get_job(id)
  local text = call('HGET', KEY.job, id)
  return text and read_job(text)
end

local function put_job(id, job)
  local values = {}
  for i, field in ipairs(FIELDS) do values[i] = job[field] end
  call('HSET', KEY.job, id, cjson.encode(values))
end

local function get_holder(id)
  local text = call('HGET', KEY.holder, id)
  return text and cjson.decode(text)
end

local function in_line(id, job)
  return string.format('%s|%s|%02d|%016d|%s', job.pool, job.user, job.band, job.seq, id)
end

-- Band and id of the user's first job in a pool.
local function head(pool, user)
  local prefix = '[' .. pool .. '|' .. user .. '|'
  local first = call('ZRANGEBYLEX', KEY.pend, prefix, prefix .. '\255', 'LIMIT', 0, 1)[1]
  if not first then return nil end
  local band, id = first:match('|(%d%d)|%d+|([^|]+)$')
  return tonumber(band), id
end

local function virtual_time(field) return tonumber(call('HGET', KEY.vt, field) or 0) end

local function may_start(user)
  local his = 'user:' .. user
  local set = settings(his .. ':paused', his .. ':cap', 'user:*:cap')
  if set[his .. ':paused'] == 1 then return false end
  local cap = set[his .. ':cap'] or set['user:*:cap']
  return not cap or count('u|' .. user .. '|') < cap
end

-- Put the user in line, or take him out, in all pools. Every script that touches a user's jobs ends here.
local function refresh(user)
  local may = may_start(user)
  for pool, key in pairs(READY) do
    local band = may and head(pool, user)
    if band then
      call('ZADD', key, band * BAND_WEIGHT + virtual_time(pool .. '|' .. user), user)
    else
      call('ZREM', key, user)
    end
  end
end

local function into_line(id, job, now)
  call('ZADD', KEY.pend, 0, in_line(id, job))
  if job.band > 0 then call('ZADD', KEY.age, now + args.age_ms, id) end
end

local function out_of_line(id, job)
  if call('ZREM', KEY.pend, in_line(id, job)) == 0 then
    call('ZREM', KEY.delayed, id)
  elseif job.band > 0 then
    call('ZREM', KEY.age, id)
  end
end

-- A job begins to wait: in line, or aside until its time comes.
local function wait(id, job, now)
  job.band = job.base
  put_job(id, job)
  if job.run_at > now then call('ZADD', KEY.delayed, job.run_at, id) else into_line(id, job, now) end
end

local function lease(id, job, token, owner, expires)
  call('ZADD', KEY.lease, expires, id)
  call('HSET', KEY.holder, id, cjson.encode({token = token, owner = owner, cancel = false}))
  call('ZADD', KEY.run, 0, 'u|' .. job.user .. '|' .. id, 0, 'p|' .. job.pool .. '|' .. id)
end

local function unlease(id, job)
  call('ZREM', KEY.lease, id)
  call('HDEL', KEY.holder, id)
  call('ZREM', KEY.run, 'u|' .. job.user .. '|' .. id, 'p|' .. job.pool .. '|' .. id)
end

-- At most `args.promoted` delayed jobs whose time has come enter the line; answers how many, and when the next is due.
local function promote(now)
  local due = call('ZRANGEBYSCORE', KEY.delayed, '-inf', now, 'LIMIT', 0, args.promoted)
  for _, id in ipairs(due) do
    local job = get_job(id)
    call('ZREM', KEY.delayed, id)
    into_line(id, job, now)
    refresh(job.user)
  end
  local next_due = call('ZRANGE', KEY.delayed, 0, 0, 'WITHSCORES')[2]
  return #due, next_due and tonumber(next_due)
end
