-- Lifts jobs that waited for `age_ms` in their band to the next better one. Answers how many, at most `limit`.
local now = clock()
local old = call('ZRANGEBYSCORE', KEY.age, '-inf', now, 'LIMIT', 0, args.limit)
for _, id in ipairs(old) do
  local job = get_job(id)
  out_of_line(id, job)
  job.band = job.band - 1
  put_job(id, job)
  into_line(id, job, now)
  refresh(job.user)
end
return #old
