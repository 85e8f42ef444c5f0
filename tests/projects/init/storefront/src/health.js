fetch(process.argv[2]).then((answer) => process.exit(answer.ok ? 0 : 1), () => process.exit(1));
