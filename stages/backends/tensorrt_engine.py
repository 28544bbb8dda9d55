full = rtx = None
