"""`bench data ACTION`, from its flags to what it prints."""

import argparse


def run(args: argparse.Namespace) -> int:
    """Check, generate, convert or encode feature files; the exit code."""
    if args.action == "check":
        from bench.terminal.checks import print_data_check

        return print_data_check(args.dir, args.json, args.html, args.quick)
    if args.action == "synth":
        from bench.data.tools import write_synthetic

        for path in write_synthetic(args.dir, [n for n in args.datasets.split(",") if n] or None, args.full):
            print(path)
        return 0
    if args.action == "convert":
        given = {m: f for m in ("text", "audio", "vision") if (f := getattr(args, f"{m}_from"))}
        if given:
            from bench.data.join import join_files

            print(join_files(args.input, args.output, given))
            return 0
        from bench.data.convert import convert_file

        print(convert_file(args.input, args.output, args.text))
        return 0
    from bench.data.encode import encode_file

    encode_file(args.input, args.output, args.encoder)
    print(args.output)
    return 0
