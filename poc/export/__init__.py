"""A run, handed over: its adapter or whole 16-bit weights, with a model card, checked against the run itself.

    folder   `poc export`: writes, checks, renames, logs      taken    what is exported, and what was measured of it
    merge    adapter and start model -> 16-bit weights        card     README.md
    parity   do both say the same?                            plain/   the other side of that, without this kit

Not here: a GGUF file. llama.cpp's converter makes one of the merged folder, and the command for it is printed. It is no
dependency: llama.cpp does not publish it as a package, and the copies that others do are stale or overwrite `gguf`.
"""
