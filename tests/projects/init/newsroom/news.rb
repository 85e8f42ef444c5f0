puts "news"
