puts "work"
