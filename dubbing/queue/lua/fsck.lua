-- Lists broken invariants as sentences. Reads everything, changes nothing but the time last seen.
local wrong = {}
local function must(held, ...) if not held then wrong[#wrong + 1] = table.concat({...}, ' ') end end

local lined, users = {}, {}
for _, entry in ipairs(call('ZRANGE', KEY.pend, 0, -1)) do
  local id = entry:match('([^|]+)$')
  local job = get_job(id)
  must(job and in_line(id, job) == entry, 'line entry', entry, 'does not match its job')
  lined[id] = true
end
local jobs = call('HGETALL', KEY.job)
for i = 1, #jobs, 2 do
  local id, job = jobs[i], read_job(jobs[i + 1])
  local delayed, leased = call('ZSCORE', KEY.delayed, id), call('ZSCORE', KEY.lease, id)
  local places = (lined[id] and 1 or 0) + (delayed and 1 or 0) + (leased and 1 or 0)
  must(places == 1, 'job', id, 'is in', places, 'places')
  must((call('ZSCORE', KEY.age, id) ~= false) == (lined[id] ~= nil and job.band > 0), 'job', id, 'ages wrongly')
  must((call('HEXISTS', KEY.holder, id) == 1) == (leased ~= false), 'job', id, 'is leased without holder or held without lease')
  for _, member in ipairs({'u|' .. job.user .. '|' .. id, 'p|' .. job.pool .. '|' .. id}) do
    must((call('ZSCORE', KEY.run, member) ~= false) == (leased ~= false), member, 'is counted wrongly')
  end
  users[job.user] = true
end
must(call('ZCARD', KEY.pend) + call('ZCARD', KEY.delayed) + call('ZCARD', KEY.lease) == #jobs / 2, 'there are places without a job')
must(call('HLEN', KEY.holder) == call('ZCARD', KEY.lease), 'there are holders without a lease')
must(call('ZCARD', KEY.run) == 2 * call('ZCARD', KEY.lease), 'there are counted runs without a lease')

for pool, key in pairs(READY) do
  local found = call('ZRANGE', key, 0, -1, 'WITHSCORES')
  for i = 1, #found, 2 do
    must(users[found[i]], found[i], 'is in line of', pool, 'without a job')
  end
  for user, _ in pairs(users) do
    local band = may_start(user) and head(pool, user)
    local score = tonumber(call('ZSCORE', key, user) or nil)
    local right = band and band * BAND_WEIGHT + virtual_time(pool .. '|' .. user) or nil
    must(score == right, user, 'has the wrong place in line of', pool)
  end
end
return cjson.encode(wrong)
