# The guest's half of a shell for the test's host. Standard input and output are the port. A line
#
#     run NUMBER SECONDS LENGTH          and LENGTH bytes of a script
#     put|add NUMBER 0 LENGTH PATH       and LENGTH bytes that become the file, or its next part
#
# is answered by `done NUMBER STATUS OUT ERR` and so many bytes of what was printed on standard output and standard error.
answer() {
    echo "done $1 $2 $(wc -c <$AGENT/out | tr -d ' ') $(wc -c <$AGENT/err | tr -d ' ')"
    cat $AGENT/out $AGENT/err
}
serve() {
    while :; do
        # Nothing can be read as long as the host's end is closed.
        read -r word number seconds length path || { [ -n "$ONCE" ] && return; sleep 0.2; continue; }
        : >$AGENT/out
        : >$AGENT/err
        case $word in
        run)
            head -c $length >$AGENT/script
            timeout -s KILL $seconds sh $AGENT/script </dev/null >$AGENT/out 2>$AGENT/err
            answer $number $?
            ;;
        put | add)
            head -c $length >$AGENT/part
            if [ $word = put ]; then cat $AGENT/part >"$path"; else cat $AGENT/part >>"$path"; fi 2>$AGENT/err
            answer $number $?
            ;;
        esac
    done
}
