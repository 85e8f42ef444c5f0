FROM busybox:1.36
ARG GREETING
ENV GREETING=${GREETING}
COPY courier.sh /courier.sh
USER 1400
ENTRYPOINT ["sh", "/courier.sh"]
