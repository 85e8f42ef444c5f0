$stdout.sync = true
loop do
  puts "work"
  sleep 1
end
