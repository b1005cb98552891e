-- Forgets leased jobs, because they ended or because their rows were won by others. Each only with its lease's own token.
local answers = {}
for i, wanted in ipairs(args.leases) do
  local id, token = wanted[1], wanted[2]
  local holder = get_holder(id)
  if holder and holder.token == token then
    local job = get_job(id)
    unlease(id, job)
    call('HDEL', KEY.job, id)
    refresh(job.user)
    answers[i] = 1
  else
    answers[i] = 0
  end
end
wake()
return cjson.encode(answers)
